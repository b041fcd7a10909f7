//! What happens to the demo's Discord of its own accord.

use std::time::Duration;

use clap::ValueEnum;
use shardmeter_gateway_sim::Control;
use tokio::time::sleep;

/// How long all is well before something happens: until the page has been looked at.
const CALM: Duration = Duration::from_secs(10);

/// How long Discord's gateway is away.
const AWAY: Duration = Duration::from_secs(15);

/// A course of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nothing happens.
    Calm,
    /// After 10 s Discord's gateway goes away for 15 s and forgets all sessions
    Outage,
}

impl Scenario {
    /// Lets it happen.
    pub(crate) async fn play(self, discord: Control) {
        match self {
            Self::Calm => {}
            Self::Outage => {
                sleep(CALM).await;
                tracing::warn!("scenario: Discord's gateway goes away");
                discord.gateway_away(true);
                sleep(AWAY).await;
                discord.gateway_away(false);
                tracing::warn!("scenario: Discord's gateway is back; shards identify anew");
            }
        }
    }
}
