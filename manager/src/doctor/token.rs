//! Whether the view token does.

use http::{HeaderValue, Method, Request, StatusCode, header};

use super::{
    Deployment, Token, ask,
    ask::Answer,
    dial::{ANSWERS_WITHIN, Trouble},
    finding::Found,
};

/// A page that viewers alone get, at next to no cost: let in, one is told that this is no shard.
const PATH: &str = "/api/v1/shards/doctor";

pub(super) async fn check(deployment: &Deployment) -> Found {
    let target = &deployment.http;
    let without = match ask(deployment, None).await {
        Ok(answer) => answer,
        Err(trouble) => return Found::unanswered(target, &trouble),
    };
    let Some(token) = &deployment.token else {
        return match without.status {
            StatusCode::UNAUTHORIZED => Found::failure(
                "a view token is needed, and none was given",
                "give --view-token-file, as scrapers do with theirs",
            ),
            StatusCode::FORBIDDEN => denied(&without),
            _ => Found::ok("nobody needs one to look"),
        };
    };
    let path = token.path.display();
    let with = match ask(deployment, Some(token)).await {
        Ok(answer) => answer,
        Err(trouble) => return Found::unanswered(target, &trouble),
    };
    match with.status {
        StatusCode::UNAUTHORIZED => Found::failure(
            format!("the token in {path} is nobody's"),
            "give the one in the file of the manager's --view-token-file; if that changed, it is read within two seconds",
        ),
        StatusCode::FORBIDDEN => denied(&with),
        _ if without.status == StatusCode::UNAUTHORIZED => {
            Found::ok(format!("the token in {path} lets in, and none does not"))
        }
        _ => Found::warning(
            format!("the token in {path} is not needed: anybody may look"),
            "start the manager with --view-token-file if that is not meant",
        ),
    }
}

fn denied(answer: &Answer) -> Found {
    Found::failure(
        format!("not let in: {}", answer.reason()),
        "give the view token; if none is set, ask by the manager's own address, as the message says",
    )
}

async fn ask(deployment: &Deployment, token: Option<&Token>) -> Result<Answer, Trouble> {
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = http::Uri::from_static(PATH);
    if let Some(token) = token {
        authorize(&mut request, token);
    }
    ask::http(&deployment.http, &deployment.trust.own, request, ANSWERS_WITHIN).await
}

/// Says who asks.
pub(super) fn authorize<T>(request: &mut Request<T>, token: &Token) {
    // It was looked at when it was read.
    if let Ok(mut value) = HeaderValue::from_str(token.authorization.expose()) {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
}
