//! The client library against a manager that asks who reports: by token, by certificate, under TLS.

use std::path::PathBuf;

use prometheus::{IntCounter, Registry};
use shardmeter_access::testing::{Authority, Files, Pair};
use shardmeter_api::Api;
use shardmeter_manager::{AccessConfig, Config};
use shardmeter_process::{
    ManagerConfig,
    testing::{eventually, is, until},
};
use shardmeter_telemetry::{Connection, Reporter, Shard};
use tokio::{process::Command, sync::oneshot};

use crate::system::RunningManager;

/// What a scraper with a certificate sees.
async fn page(manager: &RunningManager, files: &Files, authority: &Authority) -> String {
    let Pair { cert, key } = authority.client("a scraper");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "20", "--cacert"]);
    curl.arg(files.path("client-ca.pem"));
    curl.arg("--cert").arg(files.put("scraper.pem", &cert));
    curl.arg("--key").arg(files.put("scraper-key.pem", &key));
    curl.arg(format!("https://{}/metrics", manager.http));
    let output = curl.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_bot_shows_a_token_and_a_certificate() {
    let authority = Authority::new();
    let files = Files::new(&authority.server(), Some(&authority));
    let tls = files.config();
    let ingest_token_file = Some(files.put("tokens", "the-old\nthe-new\n"));
    let access = AccessConfig { ingest_token_file, ..AccessConfig::default() };
    let manager = RunningManager::start_with(Config { access, tls, ..Config::default() }).await;

    let start = |token: &PathBuf, identity: Option<Pair>| {
        let mut connection = Connection::builder(format!("https://{}", manager.grpc))
            .token_file(token)
            .ca_certificate(authority.pem());
        if let Some(Pair { cert, key }) = identity {
            connection = connection.identity(cert, key);
        }
        let registry = Registry::new();
        let counter = IntCounter::new("c_total", "A counter").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(7);
        let connection = connection.build().unwrap();
        let shard = Shard { id: 0, count: 1 };
        Reporter::builder(&connection, shard).registry(registry).build().unwrap()
    };
    let right = files.put("right", "the-new\n");
    let reporter = start(&right, Some(authority.client("a bot")));
    eventually("the bot reports", || reporter.status().connected).await;
    reporter.shutdown().await.unwrap();

    // Without the one or the other it does not, and goes on trying: with the right token it does.
    let nobody = start(&right, None);
    let token = files.put("wrong", "the-older\n");
    let reporter = start(&token, Some(authority.client("a bot")));
    let refused = |line: &str| {
        let count = line.strip_prefix("shardmeter_manager_unauthorized_total{role=\"ingest\"} ");
        count.is_some_and(|count| count != "0")
    };
    until("somebody is refused", async || {
        let page = page(&manager, &files, &authority).await;
        if page.lines().any(refused) { Ok(()) } else { Err(page) }
    })
    .await;
    assert!(!nobody.status().connected && !reporter.status().connected);
    files.put("wrong", "the-old\n");
    eventually("the bot reports", || reporter.status().connected).await;
    assert!(!nobody.status().connected);
    reporter.shutdown().await.unwrap();
    nobody.shutdown().await.unwrap_err();
    manager.stop().await;
}

#[tokio::test]
async fn the_api_shows_a_token_and_a_certificate() {
    let authority = Authority::new();
    let files = Files::new(&authority.server(), Some(&authority));
    let view_token_file = Some(files.put("view", "the-viewers\n"));
    let access = AccessConfig { view_token_file, ..AccessConfig::default() };
    let config = Config { access, tls: files.config(), ..Config::default() };
    let manager = RunningManager::start_with(config).await;

    let Pair { cert, key } = authority.client("an api");
    let token = files.put("token", "the-wrong\n");
    let api = Api::build(shardmeter_api::Config {
        addr: ([127, 0, 0, 1], 0).into(),
        database_url: format!("sqlite://{}", files.path("api.db").display()).into(),
        manager: ManagerConfig {
            endpoint: format!("https://{}", manager.grpc),
            token_file: Some(token),
            ca_cert: Some(files.path("client-ca.pem")),
            client_cert: Some(files.put("api.pem", &cert)),
            client_key: Some(files.put("api-key.pem", &key)),
        },
        ..shardmeter_api::Config::default()
    });
    let api = api.await.unwrap();
    let url = format!("http://{}/api/v1/shards", api.addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(api.run(async { drop(stopped.await) }));
    let status = async || reqwest::get(&url).await.unwrap().status();
    assert_ne!(status().await, 200, "the manager was never asked with a valid token");
    files.put("token", "the-viewers\n");
    until("the new token is used", async || is(status().await, 200)).await;
    drop(stop);
    running.await.unwrap().unwrap();
    manager.stop().await;
}
