//! Whether counts outlive a restart.

use http::StatusCode;

use super::{Deployment, ask, finding::Found};

pub(super) async fn check(deployment: &Deployment) -> Found {
    let target = &deployment.http;
    let answer = match ask::readiness(target, &deployment.trust.own).await {
        Ok(answer) => answer,
        Err(trouble) => return Found::unanswered(target, &trouble),
    };
    if answer.status != StatusCode::OK {
        let what = format!("the manager is not ready: {}", answer.reason());
        return Found::failure(what, "ask again once it has started anew");
    }
    match answer.field("journal").as_deref() {
        Some("up") => Found::ok("counts are kept on disk"),
        Some("memory") => Found::warning(
            "counts are kept in memory only: a restart of the manager loses what ended shards counted",
            "start it with --data-dir",
        ),
        Some(_) => {
            let reason = answer.field("reason").unwrap_or_else(|| "it does not say why".into());
            Found::failure(
                format!("the disk cannot be written: {reason}; a restart now would lose counts"),
                "give the disk of --data-dir room, or the directory its rights back; the manager heals by itself",
            )
        }
        None => Found::failure(
            format!("/readyz of {target} says nothing of a journal"),
            "is it a manager? the api has a port of its own, for --api",
        ),
    }
}
