//! Tokens are neither logged nor printed.

use std::{
    io,
    sync::{Arc, Mutex},
};

use shardmeter_gateway_sim::{Fault, Place, Route};
use shardmeter_process::testing::{eventually, soon};
use shardmeter_shard::{Bot, BuildError, Config};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Discord, quiet_world, total};

/// Logs in memory.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Logs everything of this thread, which in these tests runs everything.
fn log_all() -> (Logs, tracing::subscriber::DefaultGuard) {
    let logs = Logs::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(logs.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (logs, guard)
}

const WRONG: &str = "d3Jvbmc.wrong-token";

#[tokio::test]
async fn a_refused_token_ends_the_start_and_stays_secret() {
    let (logs, _guard) = log_all();
    let discord = Discord::start(quiet_world()).await;
    let config = Config { discord_token: WRONG.to_owned().into(), ..discord.config() };
    assert!(!format!("{config:?}").contains(WRONG));
    let Err(error) = Bot::build(config).await else { panic!("a wrong token was accepted") };
    assert!(matches!(error, BuildError::TokenRefused), "{error}");
    assert!(error.is_config());
    assert!(error.to_string().contains("DISCORD_TOKEN"));
    assert!(!format!("{error:?} {error}").contains(WRONG));
    assert!(!logs.text().contains(WRONG));
}

#[tokio::test]
async fn no_token_is_logged_at_any_level() {
    let (logs, _guard) = log_all();
    let discord = Discord::start(quiet_world()).await;
    let bot = discord.bot().await;
    discord.control.inject(Route::Callback, Fault::Status(500), 1);
    for _ in 0..2 {
        discord.control.interaction(Place::Dm, "ping").await.unwrap();
    }
    soon("an answer", discord.control.until(|books| books.confirmed() == 1)).await;
    discord.control.cut(0).await.unwrap();
    eventually("an error", || total(bot.shard(0), "command_errors_total") == 1.0).await;
    bot.until_connected().await;
    bot.stop().await;
    let logs = logs.text();
    assert!(logs.contains("session identified"), "the logs are read");
    for line in logs.lines().filter(|line| !line.contains("shardmeter_gateway_sim")) {
        assert!(!line.contains(crate::support::TOKEN), "{line}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_not_sent() {
    let discord = Discord::start(quiet_world()).await;
    for token in ["", "  ", "line\nbreak", "t\u{f6}ken"] {
        let config = Config { discord_token: token.to_owned().into(), ..discord.config() };
        let error = Bot::build(config).await.err();
        assert!(matches!(error, Some(BuildError::Token)), "{token:?}: {error:?}");
    }
}
