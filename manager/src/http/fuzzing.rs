//! Whole requests, through the routes.
#![expect(clippy::unwrap_used, reason = "what fuzz targets do")]

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode, header::CONTENT_TYPE},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::{Duration, advance},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Http, routes};
use crate::{
    clock::{Clock, UnixTime},
    exposition::{self, Coding, Exposition, Format, Syntax},
    fuzzing::{Input, registry, valid_page},
    ingest::PreviousBodies,
    journal::MemoryOnly,
    metrics::{Metrics, PreviousBodyMetrics},
    model::Escaping,
    registry::Registry,
};

/// What is compared after each body.
const FORMAT: Format = Format::new(Syntax::OpenMetrics, Escaping::AllowUtf8);

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// A body, the same with other digits, and one of the same sender that is anything: whoever knows the sender's previous body,
/// and whoever reads each as a whole, answer the same and show the same.
pub fn json_body(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let digits = input.byte();
    let mut bodies = input.0.splitn(2, |byte| *byte == 0xff);
    let first = bodies.next().unwrap_or_default();
    let again = other_digits(first, digits);
    let last = bodies.next().map(<[u8]>::to_vec);
    let bodies = [first.to_vec(), again.clone(), again].into_iter().chain(last);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let clock = Clock::starting_at(UnixTime::from_secs_f64(1.7e9));
            let [quick, plain] = [(); 2].map(|()| Side::new(clock, flags >> 3));
            let kept = Exposition::default();
            for (number, body) in (1..).zip(bodies) {
                plain.previous_bodies.forget_unused(UnixTime::MAX);
                let quickly = quick.post(&body, flags, number).await;
                assert_eq!(quickly, plain.post(&body, flags, number).await);
                check_pages(&quick.registry, &plain.registry, &kept, clock.now());
                advance(Duration::from_secs(10)).await;
            }
            for syntax in Syntax::ALL {
                let format = Format::new(syntax, Escaping::AllowUtf8);
                let shown = valid_page(&quick.registry, clock.now(), format);
                assert_eq!(shown, valid_page(&plain.registry, clock.now(), format));
            }
        });
    });
}

/// Every digit is one higher, or some are.
fn other_digits(body: &[u8], seed: u8) -> Vec<u8> {
    let other = |(at, byte): (usize, &u8)| match byte {
        b'0'..=b'8' if seed == 0 || (at * usize::from(seed)) % 7 < 3 => byte + 1,
        byte => *byte,
    };
    body.iter().enumerate().map(other).collect()
}

/// A manager's routes, and what is behind them.
struct Side {
    registry: Arc<Registry>,
    previous_bodies: Arc<PreviousBodies>,
    routes: Router,
}

impl Side {
    fn new(clock: Clock, limits: u8) -> Self {
        let registry = Arc::new(registry(limits));
        let previous_bodies = PreviousBodies::new(PreviousBodyMetrics::new().unwrap());
        let previous_bodies = Arc::new(previous_bodies);
        let routes = routes(Http {
            registry: Arc::clone(&registry),
            previous_bodies: Arc::clone(&previous_bodies),
            exposition: Arc::default(),
            parts: Arc::new(Semaphore::new(1)),
            journal: Arc::new(MemoryOnly),
            metrics: METRICS.with(Arc::clone),
            clock,
            openmetrics_created: false,
            shutdown: CancellationToken::new(),
        });
        Self { registry, previous_bodies, routes }
    }

    /// Status and body of the answer.
    async fn post(&self, body: &[u8], flags: u8, number: u32) -> (StatusCode, Bytes) {
        let mut request = Request::post("/shard-metrics").header(CONTENT_TYPE, "application/json");
        if flags & 1 != 0 {
            request = request.header("x-instance-id", "a");
        }
        if flags & 2 != 0 {
            request = request.header("x-report-sequence", number);
        }
        if flags & 4 != 0 {
            request = request.header("x-report-interval", "7.5");
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        assert!(!status.is_server_error(), "{status}");
        (status, to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    }
}

/// Both show the same; and so does a page that is kept, but for the order of its lines.
fn check_pages(quick: &Registry, plain: &Registry, kept: &Exposition, now: UnixTime) {
    let shown = |registry: &Registry| exposition::render(registry, &[], now, FORMAT).to_vec();
    let (page, other) = (shown(quick), shown(plain));
    assert!(page == other, "{}\n{}", page.escape_ascii(), other.escape_ascii());
    let kept = kept.render(quick, &[], now, (FORMAT, Coding::Identity)).to_vec();
    assert!(sorted(&kept) == sorted(&page), "{}\n{}", kept.escape_ascii(), page.escape_ascii());
}

fn sorted(page: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = page.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}
