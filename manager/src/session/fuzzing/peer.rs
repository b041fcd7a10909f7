//! One stream's client, which says what the fuzzer's bytes make it say.

use prost::Message as _;
use shardmeter_proto::v1::ReportRequest;

use super::*;

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

/// One stream, and what its client knows.
pub(super) struct Peer<'a> {
    pub(super) session: Session<'a>,
    shard_id: u32,
    sequence: u64,
    /// Of each id that was defined: how many values it has.
    widths: Vec<usize>,
}

impl<'a> Peer<'a> {
    pub(super) fn connect(sessions: &'a Arc<Sessions>, answers: &'a Answers) -> Self {
        let session = Session { sessions, answers, attached: None };
        Self { session, shard_id: 0, sequence: 0, widths: Vec::new() }
    }

    pub(super) fn heard(&mut self, answer: Option<Result<ReportResponse, Status>>) {
        match answer.and_then(|answer| answer.unwrap().message) {
            Some(Answer::Welcome(welcome)) => self.sequence = welcome.last_sequence,
            Some(Answer::Ack(ack)) => self.sequence = self.sequence.max(ack.sequence),
            Some(Answer::Resync(_)) | None => {}
        }
    }

    /// The shard that a message is of.
    pub(super) fn shard_id(&mut self, said: &Said) -> u32 {
        if let (Said::Hello(hello), None) = (said, &self.session.attached) {
            self.shard_id = hello.shard_id;
        }
        self.shard_id
    }

    /// Mostly what can follow what was said.
    pub(super) fn say(&mut self, input: &mut Input<'_>) -> Said {
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
