//! Mistakes in the set-up.

use crate::fake::Fake;
use crate::{Bot, registry};
use prometheus::{IntGauge, Registry};
use shardmeter_telemetry::{BuildError, Connection, Reporter, Shard};

const SHARD: Shard = Shard { id: 0, count: 1 };

fn connection() -> Connection {
    Connection::new("http://127.0.0.1:1").unwrap()
}

#[tokio::test]
async fn a_registry_has_one_reporter_in_its_life() {
    let mut fake = Fake::start().await;
    let bot = Bot::start(&fake);
    let again = || Reporter::builder(&connection(), SHARD).registry(bot.registry.clone()).build();
    assert!(matches!(again(), Err(BuildError::RegistryTaken)));

    let (mut call, _) = fake.accept_and_welcome().await;
    let frame = call.frame().await;
    assert_eq!(frame.families(), ["c_total"], "the mark is no metric");
    drop(bot.reporter);
    let taken = Reporter::builder(&connection(), SHARD).registry(bot.registry.clone()).build();
    assert!(matches!(taken, Err(BuildError::RegistryTaken)), "also when the first one is gone");
}

#[tokio::test]
async fn a_failed_build_leaves_the_other_registries_free() {
    let (taken, _) = registry();
    let (free, _) = registry();
    let _first = Reporter::builder(&connection(), SHARD).registry(taken.clone()).build().unwrap();
    let both = Reporter::builder(&connection(), SHARD).registry(free.clone()).registry(taken);
    assert!(matches!(both.build(), Err(BuildError::RegistryTaken)));
    let _second = Reporter::builder(&connection(), SHARD).registry(free.clone()).build().unwrap();
    let twice = Registry::new();
    let twice = Reporter::builder(&connection(), SHARD).registry(twice.clone()).registry(twice);
    assert!(matches!(twice.build(), Err(BuildError::RegistryTaken)));
}

#[tokio::test]
async fn a_registry_that_cannot_be_marked_says_why() {
    let registry = Registry::new();
    let squatter = IntGauge::new("shardmeter_telemetry_reporter", "Something else").unwrap();
    registry.register(Box::new(squatter)).unwrap();
    let built = Reporter::builder(&connection(), SHARD).registry(registry).build();
    assert!(built.is_err());
}

#[tokio::test]
async fn a_shard_needs_an_id_below_the_count_and_a_registry() {
    let shard = Shard { id: 2, count: 2 };
    let built = Reporter::builder(&connection(), shard).registry(Registry::new()).build();
    assert!(matches!(built, Err(BuildError::Shard(refused)) if refused == shard));
    let built = Reporter::builder(&connection(), SHARD).build();
    assert!(matches!(built, Err(BuildError::NoRegistry)));
}

#[tokio::test]
async fn an_endpoint_is_an_http_url() {
    for refused in ["", "127.0.0.1:30001", "localhost:30001", "ftp://manager", "not a url"] {
        let error = Connection::new(refused).expect_err(refused);
        assert!(
            matches!(&error, BuildError::Endpoint { endpoint, .. } if endpoint == refused),
            "{error}"
        );
    }
    for taken in
        ["https://manager:30001", "http://127.0.0.1:30001", "http://manager", "http://[::1]:30001/"]
    {
        Connection::new(taken).expect(taken);
    }
}

#[tokio::test]
async fn tokens_and_certificates_that_cannot_be_used_are_refused() {
    let http = || Connection::builder("http://manager");
    let https = || Connection::builder("https://manager");
    for token in ["", "s3cret word", "s3cr\u{e9}t", "s3cret\n"] {
        let error = http().token(token).build().unwrap_err();
        assert!(matches!(error, BuildError::Token(_)), "{error}");
        assert!(!error.to_string().contains("s3c"), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let of_file = || http().token_file(&file).build();
    assert!(of_file().unwrap_err().to_string().contains("No such file"));
    std::fs::write(&file, "\n\n").unwrap();
    assert!(of_file().unwrap_err().to_string().contains("it has no token"));
    std::fs::write(&file, "\ns3cret\n").unwrap();
    let connection = of_file().unwrap();
    let described = format!("{connection:?} {:?}", http().token("s3cret").ca_certificate("s3cret"));
    assert!(!described.contains("s3cret"), "{described}");

    let made = rcgen::generate_simple_self_signed(["manager".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    https().build().unwrap();
    https().ca_certificate(&*cert).identity(&*cert, &*key).build().unwrap();
    for refused in [
        https().ca_certificate(""),
        https().ca_certificate(&*key),
        https().ca_certificate("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"),
        https().identity(&*key, &*key),
        https().identity(&*cert, &*cert),
        https().identity(&*cert, ""),
    ] {
        let error = refused.build().unwrap_err();
        assert!(matches!(error, BuildError::Certificate(_)), "{error}");
    }
    for refused in [http().ca_certificate(&*cert), http().identity(&*cert, &*key)] {
        let error = refused.build().unwrap_err();
        assert!(matches!(error, BuildError::Endpoint { .. }), "{error}");
    }
}

#[test]
fn without_a_runtime_nothing_panics() {
    let outside = || Connection::new("http://127.0.0.1:1");
    assert!(matches!(outside(), Err(BuildError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connection = runtime.block_on(async { outside().unwrap() });
    let built = Reporter::builder(&connection, SHARD).registry(Registry::new()).build();
    assert!(matches!(built, Err(BuildError::NoRuntime)));
}
