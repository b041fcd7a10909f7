//! Who comes in: connections, TLS, tokens, and how often one address may ask.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use prometheus::Registry;
use shardmeter_access::{
    Access, AccessMetrics, Denied, Door, Farewell, Full, Pages, Peer, Places, Protocol, Rates,
    Role, Tls, TlsConfig, TlsError, TokenError, TooFast, network,
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use crate::{
    config::AccessConfig,
    http::{ErrorType, MEDIA_TYPE, Problem},
};

/// Connections at the same time; one address may have half. Each that listens to events takes one.
const CONNECTIONS: usize = 8_192;

/// How often it is looked whether files changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    access: Access,
    tls: Option<Arc<Tls>>,
    rates: Rates<IpAddr>,
    /// Of scrapes, which a dashboard at the same address must not cost.
    scrapes: Rates<IpAddr>,
}

/// Routes that are let in alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// For those who have a role.
    Of(Role),
    /// `/metrics`, for those who may view.
    Scrapes,
    /// None at all: everybody is told that there is nothing.
    Unknown,
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A token file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A mistake of this crate.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Gate {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be used.
    pub(crate) fn open(
        addr: SocketAddr,
        config: &AccessConfig,
        tls: &TlsConfig,
        registry: &Registry,
    ) -> Result<Self, GateError> {
        let metrics = AccessMetrics::register("shardmeter_api", registry)?;
        let origins = config.cors_origin.clone();
        let pages = Pages::of_port(addr, config.allow_unauthenticated, origins);
        Ok(Self {
            access: Access::open(config.token_files(), pages, metrics)?,
            tls: Tls::open(tls)?.map(Arc::new),
            rates: Rates::new(config.requests_per_second),
            scrapes: Rates::new(config.requests_per_second),
        })
    }

    /// What connections come in by.
    pub(crate) fn door(&self) -> Door {
        Door {
            protocol: Protocol::Http,
            places: Places::new("HTTP connections", CONNECTIONS, CONNECTIONS / 2),
            tls: self.tls.clone(),
            say_full,
        }
    }

    /// Looks after files and rates for as long as the task lives.
    pub(crate) fn look_after(self: Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = interval(LOOK_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let gate = Arc::clone(&self);
                if let Err(error) = spawn_blocking(move || gate.look()).await {
                    tracing::error!(%error, "tokens and certificates cannot be looked at");
                }
            }
        })
    }

    /// Takes as long as the disk does.
    fn look(&self) {
        self.access.reload();
        if let Some(tls) = &self.tls {
            tls.reload();
        }
        self.rates.forget_full();
        self.scrapes.forget_full();
    }

    fn admit(&self, group: Group, request: &Request) -> Result<(), Problem> {
        let (rates, role) = match group {
            Group::Of(role) => (&self.rates, Some(role)),
            Group::Scrapes => (&self.scrapes, Some(Role::View)),
            Group::Unknown => (&self.rates, None),
        };
        let peer = request.extensions().get::<Peer>();
        if let Some(peer) = peer {
            // First, so that nobody tries one token after the other.
            rates.of(network(peer.addr.ip())).take()?;
        }
        match role {
            Some(role) => Ok(self.access.check(role, request.headers(), peer)?),
            None => Ok(()),
        }
    }
}

/// Lets through who may do what the route does, and not too often.
pub(crate) async fn admit(
    State((gate, group)): State<(Arc<Gate>, Group)>,
    request: Request,
    next: Next,
) -> Response {
    match gate.admit(group, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let kind =
            if denied.wants_token() { ErrorType::Unauthorized } else { ErrorType::Forbidden };
        Self::new(kind, denied.to_string())
    }
}

impl From<TooFast<IpAddr>> for Problem {
    fn from(too_fast: TooFast<IpAddr>) -> Self {
        let TooFast { who, per_second, retry_after } = too_fast;
        let detail = format!("{who} sends more than {per_second} requests a second");
        let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX);
        Self::new(ErrorType::TooMany, detail).retry_after(seconds.saturating_add(1))
    }
}

/// What a connection is told that finds no place.
fn say_full(full: Full) -> Farewell {
    let document = Problem::new(ErrorType::Full, full.to_string()).document("/", None);
    let body = serde_json::to_string(&document).unwrap_or_default();
    Farewell { content_type: MEDIA_TYPE, body }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use axum::body::Body;
    use tokio::time::advance;

    use super::*;

    fn from(addr: &str) -> Request {
        let mut request = Request::new(Body::empty());
        let peer = Peer { addr: addr.parse().unwrap(), certificate: None };
        request.extensions_mut().insert(peer);
        request
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_asks_so_often_and_no_more() {
        let requests_per_second = NonZeroU32::new(2).unwrap();
        let config = AccessConfig { requests_per_second, ..AccessConfig::default() };
        let addr = ([127, 0, 0, 1], 0).into();
        let gate = Gate::open(addr, &config, &TlsConfig::default(), &Registry::new()).unwrap();
        let ask_for = |group, addr: &str| {
            gate.admit(group, &from(addr)).map_err(|problem| {
                let answer = problem.into_response();
                (
                    answer.status().as_u16(),
                    answer.headers()["retry-after"].to_str().unwrap().to_owned(),
                )
            })
        };
        let ask = |addr: &str| ask_for(Group::Of(Role::View), addr);
        for n in 0..10 {
            ask(&format!("[2001:db8::{n}]:1")).unwrap();
        }
        assert_eq!(ask("[2001:db8::ff]:9"), Err((429, "1".to_owned())), "a network has one rate");
        let unknown = ask_for(Group::Unknown, "[2001:db8::1]:1");
        assert!(matches!(unknown, Err((429, _))), "scanners have the same");
        for _ in 0..10 {
            ask_for(Group::Scrapes, "[2001:db8::1]:1").unwrap();
        }
        assert!(matches!(ask_for(Group::Scrapes, "[2001:db8::1]:1"), Err((429, _))));
        ask("[2001:db8:0:1::1]:1").unwrap();
        ask("10.0.0.1:1").unwrap();
        advance(Duration::from_millis(500)).await;
        gate.look();
        ask("[2001:db8::1]:1").unwrap();
        ask("[2001:db8::1]:1").unwrap_err();
        // Tokens are not looked at any more either: who tries them one by one is told the same.
        assert!(matches!(ask("[2001:db8::1]:1"), Err((429, _))));
    }

    #[test]
    fn who_finds_no_place_gets_a_problem_document() {
        let places = Places::new("HTTP connections", 0, 0);
        let Farewell { content_type, body } = say_full(places.take(None).unwrap_err());
        assert_eq!(content_type, "application/problem+json");
        let document: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(document["type"], "urn:shardmeter:problem:full");
        assert_eq!(document["detail"], "there are 0 HTTP connections, the limit");
    }
}
