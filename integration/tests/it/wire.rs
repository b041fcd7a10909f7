//! What is said between shards and the manager, read from the bytes that pass a proxy (HTTP/2's DATA frames, gRPC's
//! prefix, the messages of the .proto): what each instance sent, and what of that the manager acknowledged. Between
//! these two lies all that a page may show.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use prost::Message as _;
use shardmeter_proto::v1::{
    Definitions, FamilyDefinition, MetricType, ReportRequest, ReportResponse, Samples as Columns,
    report_request::Message as Request, report_response::Message as Response,
};
use tokio::time::Instant;

use crate::scrape::{Samples, Series};

/// What was said about one shard.
#[derive(Default)]
pub(crate) struct Wire(Mutex<Said>);

#[derive(Default)]
struct Said {
    /// In the order of their first Hello.
    instances: Vec<Instance>,
    acks: u64,
    /// When the last frame that was acknowledged passed.
    reported: Option<Instant>,
}

/// What was said by and to one instance.
#[derive(Default)]
struct Instance {
    id: Vec<u8>,
    sent: Counts,
    acked: Counts,
}

/// Counts up to a frame.
#[derive(Default)]
struct Counts {
    sequence: u64,
    counts: Samples,
}

impl Counts {
    /// A connection may pass what it held back after its successor has said more.
    fn advance(&mut self, sequence: u64, counts: Samples) {
        if sequence > self.sequence {
            self.sequence = sequence;
            self.counts.extend(counts);
        }
    }
}

impl Wire {
    /// What all instances together had counted in the last frames the manager acknowledged.
    pub(crate) fn acknowledged(&self) -> Samples {
        sum(self.0.lock().instances.iter().map(|instance| &instance.acked.counts))
    }

    /// What all instances together had counted in the last frames they sent.
    pub(crate) fn sent(&self) -> Samples {
        sum(self.0.lock().instances.iter().map(|instance| &instance.sent.counts))
    }

    /// How many acknowledgements passed.
    pub(crate) fn acks(&self) -> u64 {
        self.0.lock().acks
    }

    /// When the last frame that was acknowledged passed; it was applied after that.
    pub(crate) fn reported(&self) -> Option<Instant> {
        self.0.lock().reported
    }
}

/// Adds in the order given, as the manager does.
fn sum<'a>(parts: impl Iterator<Item = &'a Samples>) -> Samples {
    let mut total = Samples::new();
    for (series, value) in parts.flatten() {
        *total.entry(series.clone()).or_insert(0.0) += value;
    }
    total
}

/// Listens to one connection.
pub(crate) struct Tap(Mutex<Connection>);

struct Connection {
    wire: Arc<Wire>,
    up: Messages,
    down: Messages,
    streams: BTreeMap<u32, Stream>,
}

impl Tap {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
        Self(Mutex::new(Connection {
            wire,
            up: Messages { skip: PREFACE, ..Messages::default() },
            down: Messages::default(),
            streams: BTreeMap::new(),
        }))
    }

    pub(crate) fn shard_says(&self, bytes: &[u8]) {
        let connection = &mut *self.0.lock();
        for (stream, message) in connection.up.take(bytes) {
            let said = ReportRequest::decode(&*message).unwrap().message.unwrap();
            let stream = connection.streams.entry(stream).or_default();
            stream.request(said, &mut connection.wire.0.lock());
        }
    }

    pub(crate) fn manager_says(&self, bytes: &[u8]) {
        let connection = &mut *self.0.lock();
        for (stream, message) in connection.down.take(bytes) {
            let said = ReportResponse::decode(&*message).unwrap().message.unwrap();
            if let (Response::Ack(ack), Some(stream)) = (said, connection.streams.get_mut(&stream))
            {
                stream.acked(ack.sequence, &mut connection.wire.0.lock());
            }
        }
    }
}

/// Takes the gRPC messages out of one direction of an HTTP/2 connection (RFC 9113, section 4.1).
#[derive(Default)]
struct Messages {
    /// Bytes before the first frame.
    skip: usize,
    buffer: Vec<u8>,
    /// Of each stream, what has come of its next message.
    partial: BTreeMap<u32, Vec<u8>>,
}

impl Messages {
    fn take(&mut self, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        const DATA: u8 = 0;
        const PADDED: u8 = 8;
        self.buffer.extend(bytes);
        let skipped = self.skip.min(self.buffer.len());
        self.skip -= skipped;
        self.buffer.drain(..skipped);
        let mut messages = Vec::new();
        while let Some(&[a, b, c, kind, flags, s, t, u, v]) = self.buffer.first_chunk() {
            let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.buffer.len() < end {
                break;
            }
            let frame: Vec<u8> = self.buffer.drain(..end).collect();
            if kind == DATA {
                assert_eq!(flags & PADDED, 0, "neither side pads");
                let stream = u32::from_be_bytes([s, t, u, v]);
                let partial = self.partial.entry(stream).or_default();
                partial.extend(&frame[9..]);
                messages.extend(whole(partial).map(|message| (stream, message)));
            }
        }
        messages
    }
}

/// Takes the gRPC messages that are there as a whole.
fn whole(partial: &mut Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(|| {
        let &[compressed, a, b, c, d] = partial.first_chunk()?;
        assert_eq!(compressed, 0, "neither side compresses");
        let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize;
        let message = partial.get(5..end)?.to_vec();
        partial.drain(..end);
        Some(message)
    })
}

/// One Report stream.
#[derive(Default)]
struct Stream {
    instance: usize,
    shard_id: String,
    /// By id: which sample each of its values is; none for what may fall, two for a histogram's `_count`.
    series: Vec<Vec<Vec<Series>>>,
    counts: Samples,
    /// Frames that were not acknowledged.
    frames: Vec<(u64, Instant, Samples)>,
}

impl Stream {
    fn request(&mut self, said: Request, wire: &mut Said) {
        match said {
            Request::Hello(hello) => {
                self.shard_id = hello.shard_id.to_string();
                let id = hello.instance_id;
                let known = wire.instances.iter().position(|instance| instance.id == id);
                self.instance = known.unwrap_or_else(|| {
                    wire.instances.push(Instance { id, ..Instance::default() });
                    wire.instances.len() - 1
                });
            }
            Request::Definitions(definitions) => self.define(&definitions),
            Request::Snapshot(snapshot) => {
                self.set([snapshot.samples, snapshot.removed]);
                if snapshot.last {
                    self.frame(snapshot.sequence, wire);
                }
            }
            Request::Delta(delta) => {
                self.set([delta.samples, delta.removed]);
                self.frame(delta.sequence, wire);
            }
            Request::Goodbye(_) => {}
        }
    }

    fn define(&mut self, definitions: &Definitions) {
        for family in &definitions.families {
            for of_family in &family.series {
                let mut labels = vec![("shard_id".to_owned(), self.shard_id.clone())];
                labels.extend(of_family.labels.iter().map(|l| (l.name.clone(), l.value.clone())));
                self.series.push(samples_of(family, &labels, &of_family.bounds));
            }
        }
    }

    fn set(&mut self, columns: [Option<Columns>; 2]) {
        for Columns { series, values } in columns.into_iter().flatten() {
            let mut values = values.into_iter();
            for samples in series.into_iter().flat_map(|id| &self.series[id as usize]) {
                let value = values.next().unwrap();
                self.counts.extend(samples.iter().map(|sample| (sample.clone(), value)));
            }
        }
    }

    fn frame(&mut self, sequence: u64, wire: &mut Said) {
        self.frames.push((sequence, Instant::now(), self.counts.clone()));
        wire.instances[self.instance].sent.advance(sequence, self.counts.clone());
    }

    fn acked(&mut self, acked: u64, wire: &mut Said) {
        while let Some(at) = self.frames.iter().position(|(sequence, ..)| *sequence <= acked) {
            let (sequence, passed, counts) = self.frames.remove(at);
            if sequence == acked {
                wire.instances[self.instance].acked.advance(sequence, counts);
                wire.reported = wire.reported.max(Some(passed));
            }
        }
        wire.acks += 1;
    }
}

/// Which samples of the page the values of a series are.
fn samples_of(
    family: &FamilyDefinition,
    labels: &[(String, String)],
    bounds: &[f64],
) -> Vec<Vec<Series>> {
    let sample = |suffix: &str| -> Series {
        (format!("{}{suffix}", family.name), labels.iter().cloned().collect())
    };
    let bucket = |bound: f64| {
        let (name, mut labels) = sample("_bucket");
        labels.insert("le".to_owned(), bound.to_string());
        (name, labels)
    };
    match family.r#type() {
        MetricType::Counter => vec![vec![sample("")]],
        MetricType::Histogram => {
            let buckets = bounds.iter().map(|bound| vec![bucket(*bound)]);
            let rest = [vec![sample("_count"), bucket(f64::INFINITY)], vec![sample("_sum")]];
            buckets.chain(rest).collect()
        }
        MetricType::Summary => {
            let quantiles = bounds.iter().map(|_| Vec::new());
            quantiles.chain([vec![sample("_count")], vec![sample("_sum")]]).collect()
        }
        MetricType::Gauge | MetricType::Untyped | MetricType::Unspecified => vec![Vec::new()],
    }
}
