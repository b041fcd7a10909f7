//! What Discord says about the bot's gateway: asked at the start, and again for as long as the bot runs, because every
//! identify of every process lowers what is left.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use twilight_model::gateway::connection_info::BotConnectionInfo;

use crate::{
    identify::Budget,
    rest::{Rest, RestError},
};

/// How often Discord is asked while this process does not identify: other processes of the bot may.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Identifies come in bursts; one question answers for all within this time.
const BURST: Duration = Duration::from_secs(10);

/// Pauses between the tries at the start; after the last try the start has failed.
const START_RETRIES: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// Asks at the start. A Discord that cannot be reached or has a bad moment is asked again a few times.
pub(crate) async fn ask(rest: &Rest, budget: &Budget) -> Result<BotConnectionInfo, RestError> {
    let mut pauses = START_RETRIES.into_iter();
    loop {
        match rest.gateway_bot().await {
            Ok(info) => {
                budget.told(&info.session_start_limit);
                return Ok(info);
            }
            Err(error) => {
                let again = may_pass(&error).then(|| pauses.next()).flatten();
                let Some(pause) = again else {
                    return Err(error);
                };
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "Discord does not say where its gateway is; trying again"
                );
                sleep(error.pause(pause)).await;
            }
        }
    }
}

/// Asks again after `identified` and every few minutes, for ever; after every `turn`, while others may spend what is left.
pub(crate) async fn refresh(
    rest: Arc<Rest>,
    budget: Budget,
    identified: Arc<Notify>,
    turn: Duration,
) {
    loop {
        let asked = Instant::now();
        let mut spent = false;
        sleep(turn.min(BURST)).await;
        while !budget.is_scarce() {
            let patience = if spent { BURST } else { REFRESH_INTERVAL };
            if asked.elapsed() >= patience {
                break;
            }
            spent |= timeout(turn.min(BURST), identified.notified()).await.is_ok();
        }
        match rest.gateway_bot().await {
            Ok(info) => budget.told(&info.session_start_limit),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the identifies left are not known anew"
            ),
        }
    }
}

/// Whether the same question may be answered later.
fn may_pass(error: &RestError) -> bool {
    match error {
        RestError::Timeout | RestError::Transport(_) => true,
        RestError::Status { status, .. } => {
            status.is_server_error() || *status == http::StatusCode::TOO_MANY_REQUESTS
        }
        RestError::Build(_) | RestError::Decode(_) => false,
    }
}
