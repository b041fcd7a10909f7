//! Streams of several shards that say anything, in turns.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fuzz targets do")]

use std::collections::BTreeMap;

use prost::Message as _;
use tokio::{
    runtime::{Builder, Runtime},
    time::advance,
};

use super::*;
use crate::{
    clock::UnixTime,
    exposition::{self, Format, Syntax},
    fuzzing::{Input, page::Family, registry, valid, valid_page},
    journal::MemoryOnly,
    model::Escaping,
};

/// Streams at once.
const STREAMS: usize = 4;

/// Messages that are looked at.
const MESSAGES: usize = 50;

const NAMES: [&str; 16] = [
    "a",
    "b_total",
    "a_total",
    "a_sum",
    "a_bucket",
    "a.b",
    "a_b",
    "h",
    "h_count",
    "s",
    "shard_up",
    "é",
    "a_created",
    "U__a_2e_b",
    "",
    "9",
];
const LABELS: [&str; 16] = [
    "x",
    "y",
    "le",
    "quantile",
    "shard_id",
    "exported_shard_id",
    "job",
    "instance",
    "a.b",
    "a_b",
    "__x",
    "é",
    "",
    "shard.id",
    "_.a",
    "9",
];
const VALUES: [&str; 8] = ["", "x", "y", "0", "1", "a\\b\"c\nd", "é🦀", "0.5"];
const NUMBERS: [f64; 16] = [
    0.0,
    -0.0,
    1.0,
    0.1,
    0.5,
    2.5,
    -1.0,
    1e9,
    9_007_199_254_740_992.0,
    1e300,
    f64::MAX,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    5e-324,
    100.0,
];

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// No message panics; one that is refused changes nothing; what a stream says changes no other shard's lines; pages are
/// valid, and no count on them falls.
pub fn frames(input: &[u8]) {
    let sessions = Sessions {
        registry: Arc::new(registry()),
        journal: Arc::new(MemoryOnly),
        metrics: METRICS.with(Arc::clone),
        clock: RUNTIME.with(|runtime| {
            let _entered = runtime.enter();
            Clock::starting_at(UnixTime::from_secs_f64(1.7e9))
        }),
        fleet: None,
        report_interval: Duration::from_secs(10),
        idle_gap: Duration::from_secs(30),
        shutdown: CancellationToken::new(),
    };
    RUNTIME.with(|runtime| runtime.block_on(talk(&sessions, Input(input))));
}

async fn talk(sessions: &Sessions, mut input: Input<'_>) {
    let channels: Vec<_> = (0..STREAMS).map(|_| mpsc::channel(ANSWERS)).collect();
    let (answers, mut answered): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    let mut peers: Vec<_> =
        answers.iter().map(|answers| Peer::connect(sessions, answers)).collect();
    let mut before = Page::after(None, sessions).unwrap();
    for _ in 0..MESSAGES {
        if input.is_empty() {
            break;
        }
        if input.rarely(16) {
            advance(Duration::from_secs(input.pick(&[1, 10, 31, 100, 3601]))).await;
            if let Some(now) = Page::after(Some(&before), sessions) {
                now.check_none_fell(&before);
                before = now;
            }
        }
        let at = usize::from(input.below(STREAMS as u8));
        let said = peers[at].say(&mut input);
        let told = format!("{said:?}");
        let shard_id = peers[at].shard_id(&said);
        let outcome = peers[at].session.answer(said).await;
        let answer = answered[at].try_recv().ok();
        assert!(answered[at].try_recv().is_err(), "two answers to {told}");
        if let Some(now) = Page::after(Some(&before), sessions) {
            assert!(
                !matches!(outcome, Err(End::Refused(_))),
                "refused, and not without effect: {told}"
            );
            assert!(!is_resync(answer.as_ref()), "unused, and not without effect: {told}");
            now.check_others(&before, shard_id, &told);
            now.check_none_fell(&before);
            before = now;
        }
        peers[at].heard(answer);
        if outcome.is_err() {
            peers[at] = Peer::connect(sessions, &answers[at]);
        }
    }
    for format in [Syntax::Text, Syntax::OpenMetrics, Syntax::Protobuf] {
        let format = Format::new(format, input.pick(&Escaping::ALL));
        valid_page(&sessions.registry, sessions.clock.now(), format);
    }
}

fn is_resync(answer: Option<&Result<ReportResponse, Status>>) -> bool {
    let message = answer.and_then(|answer| answer.as_ref().ok()?.message.as_ref());
    matches!(message, Some(Answer::Resync(_)))
}

/// One stream, and what its client knows.
struct Peer<'a> {
    session: Session<'a>,
    shard_id: u32,
    sequence: u64,
    /// Of each id that was defined: how many values it has.
    widths: Vec<usize>,
}

impl<'a> Peer<'a> {
    fn connect(sessions: &'a Sessions, answers: &'a Answers) -> Self {
        let session = Session { sessions, answers, attached: None };
        Self { session, shard_id: 0, sequence: 0, widths: Vec::new() }
    }

    fn heard(&mut self, answer: Option<Result<ReportResponse, Status>>) {
        match answer.and_then(|answer| answer.unwrap().message) {
            Some(Answer::Welcome(welcome)) => self.sequence = welcome.last_sequence,
            Some(Answer::Ack(ack)) => self.sequence = self.sequence.max(ack.sequence),
            Some(Answer::Resync(_)) | None => {}
        }
    }

    /// The shard that a message is of.
    fn shard_id(&mut self, said: &Said) -> u32 {
        if let (Said::Hello(hello), None) = (said, &self.session.attached) {
            self.shard_id = hello.shard_id;
        }
        self.shard_id
    }

    /// Mostly what can follow what was said.
    fn say(&mut self, input: &mut Input<'_>) -> Said {
        let any = input.rarely(8);
        let is_new = self.session.attached.is_none();
        match if any {
            input.below(16)
        } else if is_new {
            0
        } else {
            1 + input.below(8)
        } {
            0 => hello(input),
            1 | 2 => self.define(input),
            3 | 4 if self.sequence > 0 => self.delta(input),
            3..=7 => self.snapshot(input),
            8 => Said::Goodbye(v1::Goodbye { sequence: self.some_sequence(input, 0) }),
            _ => {
                let length = usize::from(input.byte());
                let decoded = ReportRequest::decode(input.take(length));
                let message = decoded.ok().and_then(|request| request.message);
                message.unwrap_or_else(|| self.delta(input))
            }
        }
    }

    fn some_sequence(&self, input: &mut Input<'_>, next: u64) -> u64 {
        match input.below(16) {
            0 => u64::from(input.byte()),
            1 => u64::MAX - u64::from(input.byte()),
            2 => self.sequence.saturating_add(input.below(4).into()),
            _ => self.sequence.saturating_add(next),
        }
    }

    fn define(&mut self, input: &mut Input<'_>) -> Said {
        let families = (0..=input.below(2)).map(|_| {
            let kind = i32::from(input.below(7));
            let series = (0..=input.below(3)).map(|_| self.series(input, kind)).collect();
            v1::FamilyDefinition {
                name: input.pick(&NAMES).to_owned(),
                r#type: kind,
                help: input.pick(&VALUES).to_owned(),
                unit: input.pick(&["", "b", "total", "\n"]).to_owned(),
                series,
            }
        });
        Said::Definitions(v1::Definitions { families: families.collect() })
    }

    fn series(&mut self, input: &mut Input<'_>, kind: i32) -> v1::SeriesDefinition {
        let id = if input.rarely(32) { u32::from(input.byte()) } else { self.widths.len() as u32 };
        let labels = (0..input.below(3)).map(|_| v1::Label {
            name: input.pick(&LABELS).to_owned(),
            value: input.pick(&VALUES).to_owned(),
        });
        let labels = labels.collect();
        let has_bounds = kind == v1::MetricType::Histogram as i32
            || kind == v1::MetricType::Summary as i32
            || input.rarely(32);
        let bounds = if has_bounds { input.below(4) } else { 0 };
        let mut bounds: Vec<f64> = (0..bounds).map(|_| number(input)).collect();
        if !input.rarely(8) {
            bounds.sort_by(f64::total_cmp);
            bounds.dedup();
        }
        self.widths.push(if has_bounds { bounds.len() + 2 } else { 1 });
        v1::SeriesDefinition { id, labels, bounds }
    }

    fn samples(&self, input: &mut Input<'_>) -> Option<v1::Samples> {
        let mut samples = v1::Samples::default();
        for (id, width) in (0..).zip(&self.widths) {
            if input.below(4) == 0 {
                continue;
            }
            samples.series.push(id);
            // Mostly rising, from one to the next and over time.
            let mut value = self.sequence as f64;
            for _ in 0..*width {
                value += f64::from(input.below(4));
                samples.values.push(if input.rarely(16) { number(input) } else { value });
            }
        }
        if input.rarely(16) {
            samples.series.push(u32::from(input.byte()));
        }
        (!input.rarely(16)).then_some(samples)
    }

    fn exemplars(input: &mut Input<'_>) -> Vec<v1::Exemplar> {
        let many = if input.rarely(8) { 1 + input.below(2) } else { 0 };
        let exemplar = |_| v1::Exemplar {
            series: input.below(4).into(),
            bucket: input.below(4).into(),
            labels: vec![v1::Label {
                name: input.pick(&LABELS).to_owned(),
                value: input.pick(&VALUES).repeat(usize::from(input.byte())),
            }],
            value: number(input),
            time: input.rarely(2).then(|| prost_types::Timestamp {
                seconds: input.pick(&[0, 1, 1_700_000_000, 1_800_000_000, -1, i64::MAX]),
                nanos: input.pick(&[0, 1, 999_999_999, 1_000_000_000, -1, i32::MAX]),
            }),
        };
        (0..many).map(exemplar).collect()
    }

    fn delta(&self, input: &mut Input<'_>) -> Said {
        Said::Delta(v1::Delta {
            sequence: self.some_sequence(input, 1),
            samples: self.samples(input),
            removed: if input.rarely(8) { self.samples(input) } else { None },
            exemplars: Self::exemplars(input),
        })
    }

    fn snapshot(&self, input: &mut Input<'_>) -> Said {
        Said::Snapshot(v1::Snapshot {
            sequence: self.some_sequence(input, 1),
            part: if input.rarely(8) { input.below(3).into() } else { 0 },
            last: !input.rarely(8),
            samples: self.samples(input),
            removed: if input.rarely(8) { self.samples(input) } else { None },
            exemplars: Self::exemplars(input),
        })
    }
}

fn hello(input: &mut Input<'_>) -> Said {
    Said::Hello(v1::Hello {
        shard_id: input.below(3).into(),
        shard_count: if input.rarely(16) { input.byte().into() } else { 3 },
        instance_id: vec![input.below(6); if input.rarely(32) { 15 } else { 16 }],
        started_at: input.rarely(2).then(|| prost_types::Timestamp {
            seconds: input.pick(&[0, 1_600_000_000, 1_800_000_000, -1, i64::MAX]),
            nanos: input.pick(&[0, 1, 999_999_999, -1, i32::MAX]),
        }),
        ..v1::Hello::default()
    })
}

fn number(input: &mut Input<'_>) -> f64 {
    match input.below(3) {
        0 => input.pick(&NUMBERS),
        1 => f64::from(input.byte()),
        _ => input.take(8).first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes)),
    }
}

/// Name and labels of a sample.
type Key = (String, Vec<(String, String)>);

/// What shards show.
struct Page {
    text: Vec<u8>,
    families: Vec<Family>,
    /// What must not fall, with the type of its family.
    counts: BTreeMap<Key, f64>,
}

impl Page {
    /// The page now, if it is another than before.
    fn after(before: Option<&Self>, sessions: &Sessions) -> Option<Self> {
        let format = Format::new(Syntax::Text, Escaping::AllowUtf8);
        let page = exposition::render(&sessions.registry, &[], sessions.clock.now(), format);
        let text = page.to_vec();
        if before.is_some_and(|before| before.text == text) {
            return None;
        }
        let families = valid(format, &text);
        // What the manager says of a shard goes with the shard, when the bot has fewer.
        let of_shards = families.iter().filter(|family| !family.name.starts_with("shard_"));
        let counts = of_shards.flat_map(|family| {
            family.samples.iter().filter_map(|sample| {
                let is_count = match family.kind.as_str() {
                    "counter" => true,
                    "histogram" => !sample.name.ends_with("_sum"),
                    "summary" => sample.name == format!("{}_count", family.name),
                    _ => false,
                };
                let key = (sample.name.clone(), sample.labels.clone());
                is_count.then(|| (key, f64::from_bits(sample.bits)))
            })
        });
        let counts = counts.collect();
        Some(Self { text, families, counts })
    }

    /// What was counted is still there, unless its bucket is no longer shown.
    fn check_none_fell(&self, before: &Self) {
        for (key, count) in &before.counts {
            match self.counts.get(key) {
                Some(now) => assert!(now >= count, "{key:?} fell from {count} to {now}"),
                None => {
                    let is_bucket = key.1.iter().any(|(name, _)| name == "le");
                    assert!(is_bucket, "{key:?} is gone, and was {count}");
                }
            }
        }
    }

    /// Only the lines of `shard_id` may differ.
    fn check_others(&self, before: &Self, shard_id: u32, told: &str) {
        let own = ("shard_id".to_owned(), shard_id.to_string());
        let others = |page: &Self| {
            let samples = page.families.iter().flat_map(|family| &family.samples);
            // What the manager says of shards that never reported comes and goes with the size of the bot.
            let samples = samples.filter(|sample| {
                !sample.labels.contains(&own) && !sample.name.starts_with("shard_")
            });
            samples.cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(self), others(before), "shard {shard_id}: {told}");
    }
}
