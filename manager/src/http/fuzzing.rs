//! Whole requests, through the routes.
#![expect(clippy::unwrap_used, reason = "what fuzz targets do")]

use std::{io::Write as _, num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{
        Request, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
        request::Builder,
    },
};
use flate2::{Compression, write::GzEncoder};
use shardmeter_access::{Access, Pages, Places, TokenFiles};
use tokio::{
    runtime::{Builder as RuntimeBuilder, Runtime},
    sync::Semaphore,
    time::{Duration, advance},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Http, Readers, Room, routes};
use crate::{
    clock::{Clock, UnixTime},
    exposition::{self, Coding, Exposition, Format, Syntax},
    fuzzing::{Input, registry, valid_page},
    ingest::PreviousBodies,
    journal::MemoryOnly,
    live::Live,
    metrics::{Metrics, PreviousBodyMetrics},
    model::Escaping,
    rates::Rates,
    registry::Registry,
};

/// What is compared after each body.
const FORMAT: Format = Format::new(Syntax::OpenMetrics, Escaping::AllowUtf8);

/// Requests that are looked at.
const REQUESTS: usize = 6;

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
    static ACCESS: Arc<Access> =
        Arc::new(Access::open(TokenFiles::default(), Pages::Any, METRICS.with(|all| all.access.clone())).unwrap());
    static RUNTIME: Runtime =
        RuntimeBuilder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// A body, the same with other digits twice, and one of the same sender that is anything: whoever knows the sender's previous body,
/// and whoever reads each as a whole, answer the same and show the same.
pub fn json_body(input: &[u8]) {
    let mut input = Input(input);
    let flags = input.byte();
    let digits = input.byte();
    let mut bodies = input.0.splitn(2, |byte| *byte == 0xff);
    let first = bodies.next().unwrap_or_default();
    let second = other_digits(first, digits);
    let third = other_digits(&second, digits);
    let last = bodies.next().map(<[u8]>::to_vec);
    let bodies = [first.to_vec(), second, third].into_iter().chain(last);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let clock = Clock::starting_at(UnixTime::from_secs_f64(1.7e9));
            let [quick, plain] = [(); 2].map(|()| Side::new(clock, flags >> 3));
            let kept = Exposition::default();
            for (number, body) in (1..).zip(bodies) {
                plain.previous_bodies.forget_unused(UnixTime::MAX);
                let quickly = quick.send(json_request(flags, number), &body).await;
                assert_eq!(quickly, plain.send(json_request(flags, number), &body).await);
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

/// Requests to the routes of metrics, of any type and coding: what is refused changes nothing, and pages are valid.
pub fn push(input: &[u8]) {
    let mut input = Input(input);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let clock = Clock::starting_at(UnixTime::from_secs_f64(1.7e9));
            let side = Side::new(clock, input.byte());
            let mut before = page(&side.registry, clock.now());
            for _ in 0..REQUESTS {
                let Some((request, body)) = any_request(&mut input) else { break };
                let (status, answer) = side.send(request, &body).await;
                let now = page(&side.registry, clock.now());
                let changed = now != before;
                assert!(status.is_success() || !changed, "{status} {answer:?}");
                if changed {
                    valid_page(&side.registry, clock.now(), FORMAT);
                }
                before = now;
            }
        });
    });
}

/// Every digit is one higher, or some are; a nine becomes one digit more.
fn other_digits(body: &[u8], seed: u8) -> Vec<u8> {
    let mut other = Vec::with_capacity(body.len());
    for (at, byte) in body.iter().enumerate() {
        match byte {
            _ if seed != 0 && (at * usize::from(seed)) % 7 > 2 => other.push(*byte),
            b'0'..=b'8' => other.push(byte + 1),
            b'9' => other.extend(b"10"),
            byte => other.push(*byte),
        }
    }
    other
}

fn json_request(flags: u8, number: u32) -> Builder {
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
    request
}

/// A request and its body: a byte each for method, type and coding, then path and body, each behind its length.
fn any_request(input: &mut Input<'_>) -> Option<(Builder, Vec<u8>)> {
    if input.is_empty() {
        return None;
    }
    let method = input.pick(&["POST", "PUT", "DELETE"]);
    let content_type = input.pick(&[
        "text/plain",
        "application/openmetrics-text",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        "application/json",
        "",
    ]);
    let coding = input.byte() % 5;
    let path = match input.byte() % 4 {
        0 => "/metrics?shard_id=1".to_owned(),
        1 => "/metrics/job/a/shard_id/1".to_owned(),
        2 => "/metrics/job/a/shard_id/0-2/b/c".to_owned(),
        _ => {
            let length = input.byte().into();
            let path = input.take(length);
            format!("/metrics/job/{}", String::from_utf8_lossy(path))
        }
    };
    let length = u16::from_le_bytes([input.byte(), input.byte()]).into();
    let body = input.take(length);
    // What is no path at all is hyper's matter.
    let uri = axum::http::Uri::try_from(path).ok()?;
    let mut request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content_type);
    let named = match coding {
        1 | 2 => Some("gzip"),
        3 | 4 => Some("zstd"),
        _ => None,
    };
    if let Some(named) = named {
        request = request.header(CONTENT_ENCODING, named);
    }
    Some((request, packed(body, coding)))
}

/// The body, compressed with some of the codings, and as it is with others.
fn packed(body: &[u8], coding: u8) -> Vec<u8> {
    match coding {
        2 => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(body).unwrap();
            gzip.finish().unwrap()
        }
        4 => zstd::encode_all(body, 1).unwrap(),
        _ => body.to_vec(),
    }
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
        let http = Http {
            registry: Arc::clone(&registry),
            previous_bodies: Arc::clone(&previous_bodies),
            exposition: Arc::default(),
            readers: Arc::new(Readers::new(METRICS.with(|all| all.cut_readers.clone()))),
            live: Live::new(Arc::clone(&registry), clock),
            viewers: Places::new("viewers of live rows", 1, 1),
            parts: Arc::new(Semaphore::new(1)),
            bodies: Arc::new(Semaphore::new(1)),
            room: Arc::new(Room::new(usize::MAX)),
            journal: Arc::new(MemoryOnly),
            metrics: METRICS.with(Arc::clone),
            rates: Arc::new(Rates::new(NonZeroU32::MAX)),
            clock,
            openmetrics_created: false,
            shutdown: CancellationToken::new(),
        };
        let routes = ACCESS.with(|access| routes(http, access));
        Self { registry, previous_bodies, routes }
    }

    /// Status and body of the answer.
    async fn send(&self, request: Builder, body: &[u8]) -> (StatusCode, Bytes) {
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let answer = self.routes.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        assert!(!status.is_server_error(), "{status}");
        (status, to_bytes(answer.into_body(), usize::MAX).await.unwrap())
    }
}

fn page(registry: &Registry, now: UnixTime) -> Vec<u8> {
    exposition::render(registry, &[], now, FORMAT).to_vec()
}

/// Both show the same; and so does a page that is kept, but for the order of its lines.
fn check_pages(quick: &Registry, plain: &Registry, kept: &Exposition, now: UnixTime) {
    let (shown, other) = (page(quick, now), page(plain, now));
    assert!(shown == other, "{}\n{}", shown.escape_ascii(), other.escape_ascii());
    let kept = kept.render(quick, &[], now, (FORMAT, Coding::Identity)).to_vec();
    assert!(sorted(&kept) == sorted(&shown), "{}\n{}", kept.escape_ascii(), shown.escape_ascii());
}

fn sorted(page: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = page.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    lines
}
