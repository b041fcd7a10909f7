//! The client library against a manager that asks who reports: by token, by certificate, under TLS.

use std::{fs, path::PathBuf, time::Duration};

use prometheus::{IntCounter, Registry};
use shardmeter_manager::{AccessConfig, Config, TlsConfig};
use shardmeter_telemetry::{Connection, Reporter, Shard};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{certificates::Authority, system::RunningManager};

const SOON: Duration = Duration::from_secs(60);

struct Files(TempDir);

impl Files {
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_bot_shows_a_token_and_a_certificate() {
    let files = Files(TempDir::new().unwrap());
    let authority = Authority::new();
    let (cert, key) = authority.signed();
    let tls = TlsConfig {
        tls_cert: Some(files.put("cert.pem", &cert)),
        tls_key: Some(files.put("key.pem", &key)),
        tls_client_ca: Some(files.put("ca.pem", &authority.pem())),
    };
    let ingest_token_file = Some(files.put("tokens", "the-old\nthe-new\n"));
    let access = AccessConfig { ingest_token_file, ..AccessConfig::default() };
    let manager = RunningManager::start_with(Config { access, tls, ..Config::default() }).await;

    let start = |token: &PathBuf, identity: Option<(String, String)>| {
        let mut connection = Connection::builder(format!("https://{}", manager.grpc))
            .token_file(token)
            .ca_certificate(authority.pem());
        if let Some((cert, key)) = identity {
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
    let reporter = start(&right, Some(authority.signed()));
    until("the bot reports", || reporter.status().connected).await;
    reporter.shutdown().await.unwrap();

    // Without the one or the other it does not, and goes on trying: with the right token it does.
    let nobody = start(&right, None);
    let token = files.put("wrong", "the-older\n");
    let reporter = start(&token, Some(authority.signed()));
    sleep(Duration::from_secs(1)).await;
    assert!(!nobody.status().connected && !reporter.status().connected);
    files.put("wrong", "the-old\n");
    until("the bot reports", || reporter.status().connected).await;
    assert!(!nobody.status().connected);
    reporter.shutdown().await.unwrap();
    nobody.shutdown().await.unwrap_err();
    manager.stop().await;
}
