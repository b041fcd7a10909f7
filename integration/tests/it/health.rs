//! `healthcheck`, as a container runs it: beside the binary that it asks, with the same environment.

use std::{net::SocketAddr, path::Path, time::Duration};

use shardmeter_process::testing::until;
use tokio::process::Command;

use crate::{
    process::{ManagerProcess, Scratch, ShardProcess, binary},
    system::Discord,
    tools::lasting_addr,
};

/// The exit code, and what it says.
async fn healthcheck(name: &str, folder: &Path, environment: &[(&str, String)]) -> (i32, String) {
    let mut command = Command::new(binary(name, folder));
    command.arg("healthcheck").envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.env("LOG_FORMAT", "text").output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_manager_and_a_bot_say_whether_they_are_well() {
    let scratch = Scratch::new("health");
    let folder = scratch.path();
    let mut manager = ManagerProcess::start(folder, Duration::from_secs(30)).await;
    let asked = [("SHARDMETER_HTTP_ADDR", manager.http.to_string())];
    let (code, said) = healthcheck("shardmeter-manager", folder, &asked).await;
    assert_eq!((code, &*said), (0, ""), "one that is well");
    // As in a container, where it listens everywhere.
    let everywhere = SocketAddr::from(([0, 0, 0, 0], manager.http.port())).to_string();
    let (code, said) =
        healthcheck("shardmeter-manager", folder, &[("SHARDMETER_HTTP_ADDR", everywhere)]).await;
    assert_eq!(code, 0, "{said}");

    let discord = Discord::start(1, 5, 0.0).await;
    let health = ("SHARDMETER_HEALTH_ADDR", lasting_addr().to_string());
    let environment = [health.clone(), ("DISCORD_TOKEN", "token".to_owned())];
    let (code, said) = healthcheck("shardmeter-shard", folder, &environment).await;
    assert_eq!(code, 1, "one that does not run: {said}");
    let mut bot = ShardProcess::start_with(folder, &discord, (0, 1), manager.grpc, vec![health]);
    until("the bot is well", || async {
        match healthcheck("shardmeter-shard", folder, &environment).await {
            (0, _) => Ok(()),
            (_, said) => Err(said),
        }
    })
    .await;
    discord.stop().await;
    until("the bot is not well without Discord", || async {
        match healthcheck("shardmeter-shard", folder, &environment).await {
            (1, said) if said.contains("answers 503") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    bot.process.terminate().await;

    manager.process.terminate().await;
    let (code, said) = healthcheck("shardmeter-manager", folder, &asked).await;
    assert_eq!(code, 1);
    assert!(said.contains(&format!("nobody is well at {}", manager.http)), "{said}");
    // A bot without the address has nobody to ask.
    let token = [("DISCORD_TOKEN", "token".to_owned())];
    let (code, said) = healthcheck("shardmeter-shard", folder, &token).await;
    assert_eq!(code, 2, "{said}");
}
