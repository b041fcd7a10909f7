//! A configuration that cannot work ends the start at once.

use shardmeter_shard::{Bot, BuildError, Config, ManagerConfig};

use crate::support::{Discord, TOKEN, quiet_world};

/// A configuration for a Discord that is not there: what asks it fails with [`BuildError::Discord`].
fn without_discord() -> Config {
    Config { discord_api_url: Some("http://127.0.0.1:1".to_owned()), ..Config::new(TOKEN) }
}

/// The same, with a manager.
fn with_manager(manager: ManagerConfig) -> Config {
    Config { manager, ..without_discord() }
}

/// Why a bot with this configuration cannot be built, which is the configuration's fault.
async fn refused(config: Config) -> BuildError {
    let Err(error) = Bot::build(config).await else { panic!("the configuration was accepted") };
    assert!(error.is_config(), "{error:?}");
    error
}

#[tokio::test]
async fn addresses_that_are_none_are_refused_without_discord() {
    let gateway =
        |url: &str| Config { discord_gateway_url: Some(url.to_owned()), ..without_discord() };
    let api = |url: &str| Config { discord_api_url: Some(url.to_owned()), ..without_discord() };
    for config in
        [gateway("http://127.0.0.1:1"), gateway("nowhere"), api("ws://127.0.0.1:1"), api("")]
    {
        let error = refused(config).await;
        assert!(matches!(error, BuildError::Address(..)), "{error:?}");
    }
    for url in ["", "nowhere", "ftp://127.0.0.1:1"] {
        let error = refused(with_manager(ManagerConfig::at(url))).await;
        assert!(matches!(error, BuildError::Report(_)), "{error:?}");
    }
    for url in ["", "nowhere", "http://127.0.0.1:1"] {
        let redis_url = Some(url.to_owned().into());
        let error = refused(Config { redis_url, ..without_discord() }).await;
        assert!(matches!(error, BuildError::Redis(_)), "{error:?}");
    }
}

#[tokio::test]
async fn files_for_the_manager_that_are_none_are_refused_without_discord() {
    let empty = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let (missing, empty) = (Some("/no/such/file".into()), Some(empty.to_path_buf()));
    for token_file in [missing.clone(), empty.clone()] {
        let manager = ManagerConfig { token_file, ..ManagerConfig::default() };
        let error = refused(with_manager(manager)).await;
        assert!(matches!(error, BuildError::Report(_)), "{error:?}");
    }
    let config = |ca_cert| {
        with_manager(ManagerConfig { ca_cert, ..ManagerConfig::at("https://127.0.0.1:1") })
    };
    let error = refused(config(missing)).await;
    assert!(matches!(error, BuildError::ManagerFile { .. }), "{error:?}");
    let error = refused(config(empty)).await;
    assert!(matches!(error, BuildError::Report(_)), "{error:?}");
}

#[tokio::test]
async fn a_state_dir_that_cannot_be_one_is_refused_without_discord() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let state_dir = Some(file.path().to_owned());
    let error = refused(Config { state_dir, ..without_discord() }).await;
    assert!(matches!(error, BuildError::StateDir(_)), "{error:?}");
}

#[tokio::test]
async fn shards_beyond_a_fixed_count_are_refused_without_discord() {
    let shard_ids = Some("0-3".parse().unwrap());
    let shard_count = "2".parse().unwrap();
    let error = refused(Config { shard_ids, shard_count, ..without_discord() }).await;
    assert!(matches!(error, BuildError::ShardIds { count: 2, .. }), "{error:?}");
    let shard_count = "100000".parse().unwrap();
    let error = refused(Config { shard_count, ..without_discord() }).await;
    assert!(matches!(error, BuildError::TooManyShards(100_000)), "{error:?}");
}

#[tokio::test]
async fn shards_beyond_those_discord_recommends_are_refused() {
    let discord = Discord::start(quiet_world()).await;
    let shard_ids = Some("1-2".parse().unwrap());
    let error = refused(Config { shard_ids, ..discord.config() }).await;
    assert!(matches!(error, BuildError::ShardIds { count: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_discord_that_is_away_is_no_fault_of_the_configuration() {
    // The clock runs to the end of each pause between the tries.
    tokio::time::pause();
    let error = Bot::build(without_discord()).await.err().unwrap();
    assert!(matches!(error, BuildError::Discord(_)), "{error:?}");
    assert!(!error.is_config());
}
