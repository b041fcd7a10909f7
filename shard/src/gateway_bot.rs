//! What Discord says about the bot's gateway: asked at the start, and again for as long as the bot runs, because every
//! identify of every process lowers what is left.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::timeout};
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
                tokio::time::sleep(error.pause(pause)).await;
            }
        }
    }
}

/// Asks again after `identified` and every few minutes, for ever.
pub(crate) async fn refresh(rest: Arc<Rest>, budget: Budget, identified: Arc<Notify>) {
    loop {
        tokio::time::sleep(BURST).await;
        // Either way it is time to ask.
        let _ = timeout(REFRESH_INTERVAL, identified.notified()).await;
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
