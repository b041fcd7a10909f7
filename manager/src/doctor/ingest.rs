//! Who may report: a port that others reach should ask.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};

use super::{
    Deployment, ask,
    dial::{ANSWERS_WITHIN, Target},
    finding::Found,
};

/// Who reaches an address, the most last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Machine,
    Network,
    World,
}

/// Posts nothing: whoever is let in is told that this is no report.
pub(super) async fn check(deployment: &Deployment) -> Found {
    let target = &deployment.http;
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/shard-metrics");
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    let answer = ask::http(target, &deployment.trust.anonymous, request, ANSWERS_WITHIN).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(trouble) if trouble.wants_certificate() => {
            return Found::ok("whoever reports needs a certificate");
        }
        Err(trouble) => {
            return Found::unanswered(target, &trouble);
        }
    };
    match answer.status {
        StatusCode::UNAUTHORIZED => return Found::ok("whoever reports needs a token"),
        StatusCode::FORBIDDEN => return Found::ok("who is not of this machine may not report"),
        StatusCode::BAD_REQUEST => {}
        other => {
            let what = format!("{target} answers {other} to an empty report");
            return Found::failure(what, "is it a manager? nothing else is to take reports there");
        }
    }
    open_to(reach(target).await.max(reach(&deployment.grpc).await))
}

/// Nobody is asked who they are.
fn open_to(reach: Reach) -> Found {
    let remedy = "give the manager --ingest-token-file or --tls-client-ca, or keep the port to those that may report";
    match reach {
        Reach::Machine => Found::ok("anybody on this machine may report"),
        Reach::Network => {
            let what = "whoever is on this network may report, without token or certificate";
            Found::warning(what, remedy)
        }
        Reach::World => {
            let what = "anybody in the world may report, without token or certificate";
            Found::failure(what, remedy)
        }
    }
}

async fn reach(target: &Target) -> Reach {
    let found = target.addresses().await.unwrap_or_default();
    found.into_iter().map(of).max().unwrap_or(Reach::World)
}

fn of(ip: IpAddr) -> Reach {
    let (here, near) = match ip {
        IpAddr::V4(ip) => (ip.is_loopback(), ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => (ip.is_loopback(), ip.is_unique_local() || ip.is_unicast_link_local()),
    };
    match (here, near) {
        (true, _) => Reach::Machine,
        (_, true) => Reach::Network,
        _ => Reach::World,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_who_reaches_it() {
        for (ip, reach) in [
            ("127.1.2.3", Reach::Machine),
            ("::1", Reach::Machine),
            ("10.0.0.1", Reach::Network),
            ("172.20.0.2", Reach::Network),
            ("169.254.1.1", Reach::Network),
            ("fd00::1", Reach::Network),
            ("fe80::1", Reach::Network),
            ("172.32.0.1", Reach::World),
            ("203.0.113.1", Reach::World),
            ("2001:db8::1", Reach::World),
        ] {
            assert_eq!(of(ip.parse().unwrap()), reach, "{ip}");
        }
    }
}
