//! Whether the api serves, and has what it needs.

use http::StatusCode;

use super::{Deployment, ask, dial::Target, finding::Found};

pub(super) async fn check(deployment: &Deployment, target: &Target) -> Found {
    let answer = match ask::readiness(target, &deployment.trust.own).await {
        Ok(answer) => answer,
        Err(trouble) => return Found::unanswered(target, &trouble),
    };
    let down = |part| answer.field(part).as_deref() == Some("down");
    if answer.field("database").is_none() {
        let what = format!("{target}/readyz answers {} and nothing of a database", answer.status);
        return Found::failure(what, "is it the api? the manager has flags of its own here");
    }
    if down("database") {
        let what = format!("{target} has no database");
        return Found::failure(
            what,
            "see that its database runs and can be reached; its log has the reason",
        );
    }
    if answer.status != StatusCode::OK {
        let status = answer.field("status").unwrap_or_else(|| answer.status.to_string());
        return Found::failure(
            format!("{target} is {status}"),
            "ask again once it has started anew",
        );
    }
    if down("manager") {
        return Found::warning(
            format!("{target} serves, but does not reach the manager"),
            "correct its MANAGER_ENDPOINT, MANAGER_TOKEN_FILE (a view token) or MANAGER_CA_CERT; its log has the reason",
        );
    }
    if down("events") {
        let what = format!("{target} serves, but its Redis is away: live events are its own alone");
        return Found::warning(what, "see that Redis runs and can be reached");
    }
    Found::ok(format!("{target} serves, {} ms", answer.took.as_millis()))
}
