//! Bots on Node with the real prom-client post to the manager; the merged page says what prom-client says of itself.

use serde_json::Value;
use shardmeter_process::testing::until;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    scrape,
    scrape::Samples,
    system::{RunningManager, same},
    tools::{self, root},
};

struct Bot {
    shard_id: u32,
    process: Child,
}

impl Bot {
    fn start(manager: &RunningManager, shard_id: u32) -> Self {
        let folder = root().join("integration/node");
        let installed = folder.join("node_modules/prom-client").exists();
        assert!(installed, "prom-client is not installed; run scripts/setup");
        let mut command = Command::new("node");
        command.current_dir(folder).args(["bot.mjs", &manager.url(""), &shard_id.to_string()]);
        Self { shard_id, process: tools::start(&mut command) }
    }

    /// Stops it, and returns what prom-client says of itself, with the `shard_id` that the manager adds.
    async fn finish(mut self) -> Samples {
        self.process.stdin.take().unwrap().write_all(b"finish\n").await.unwrap();
        let mut said = String::new();
        BufReader::new(self.process.stdout.take().unwrap()).read_line(&mut said).await.unwrap();
        let said: Value = serde_json::from_str(&said).expect("the bot posted to the end");
        assert!(said["counted"].as_u64().unwrap() > 50, "the bot counted");
        let own = scrape::parse(said["metrics"].as_str().unwrap());
        let with_shard = own.into_iter().map(|((name, mut labels), value)| {
            labels.insert("shard_id".to_owned(), self.shard_id.to_string());
            ((name, labels), value)
        });
        with_shard.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_what_prom_client_says() {
    let manager = RunningManager::start().await;
    let bots = [Bot::start(&manager, 0), Bot::start(&manager, 7)];
    until("both bots have posted a few times", || async {
        let page = manager.scrape().await;
        let posts = |shard: &str| {
            let series =
                scrape::series("shard_reports_total", [("shard_id", shard), ("transport", "http")]);
            page.get(&series).copied().unwrap_or(0.0)
        };
        if posts("0").min(posts("7")) >= 4.0 {
            Ok(())
        } else {
            Err(format!("{}, {}", posts("0"), posts("7")))
        }
    })
    .await;
    let mut own = Samples::new();
    for bot in bots {
        own.extend(bot.finish().await);
    }
    assert!(own.len() > 150, "default metrics are among them");

    let page = manager.page().await;
    let managers =
        |name: &str| name.starts_with("shardmeter_manager_") || name.starts_with("shard_");
    let merged =
        scrape::parse(&page).into_iter().filter(|((name, _), _)| !managers(name)).collect();
    same(&own, &merged).unwrap();
    assert!(page.contains(
        "# HELP commands_executed_total Commands, \"quoted\", back\\\\slash,\\nsecond line 🦀\n"
    ));
    manager.stop().await;
}
