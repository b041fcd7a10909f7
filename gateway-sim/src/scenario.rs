//! A bad day of Discord's, played on a running simulator.

use std::time::Duration;

use clap::ValueEnum;

use crate::books::ShardBooks;
use crate::control::{ActError, Control};
use crate::guilds::{Presence, shard_of};
use crate::rest::{Fault, RateLimitScope, Route};

/// Answers to interactions that are slow, for each that is refused.
const SLOW_PER_REFUSED: usize = 3;
/// Enough that none is well before the end, and no more than may wait.
const ROUNDS: usize = 2_000;

/// What happens to whoever is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Every second shard is cut off and cannot connect, every second guild of the others is unavailable, and REST is slow or
    /// answers 429; then all of it passes.
    Outage,
}

impl Scenario {
    /// Plays it for so long. Bots that were cut off come back when they next try.
    pub async fn play(self, control: &Control, lasts: Duration) {
        let Self::Outage = self;
        let away = begin(control).await;
        tracing::warn!(shards = ?away, ?lasts, "Discord has an outage");
        tokio::time::sleep(lasts).await;
        end(control).await;
        tracing::warn!("Discord's outage is over");
    }
}

/// The shards that are cut off.
async fn begin(control: &Control) -> Vec<u32> {
    control.refuse_connections(true);
    let books = control.books();
    let sessions = books.shards.values().filter_map(ShardBooks::newest_session);
    let count = sessions.map(|session| session.shard_count).max().unwrap_or(1);
    let away: Vec<u32> = books.connected().into_iter().rev().step_by(2).collect();
    for shard in &away {
        // Who has gone meanwhile is away too.
        let _: Result<(), ActError> = control.cut(*shard).await;
    }
    let guilds = control.guilds();
    let others = guilds.iter().filter(|guild| !away.contains(&shard_of(guild.id, count)));
    for guild in others.step_by(2) {
        let _: Result<(), ActError> = control.guild_unavailable(guild.id).await;
    }
    for _ in 0..ROUNDS {
        let slow = Fault::Delay(Duration::from_millis(1_500));
        control.inject(Route::Callback, slow, SLOW_PER_REFUSED);
        let retry_after = Duration::from_secs(1);
        let refused = Fault::RateLimited { retry_after, scope: RateLimitScope::User };
        control.inject(Route::Callback, refused, 1);
    }
    away
}

async fn end(control: &Control) {
    control.refuse_connections(false);
    control.clear_faults();
    for guild in control.guilds() {
        if guild.presence == Presence::Unavailable {
            let _: Result<(), ActError> = control.guild_available(guild.id).await;
        }
    }
}
