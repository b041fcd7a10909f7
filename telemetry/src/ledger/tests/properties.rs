//! Whatever happens to frames, acknowledgements, streams and series, every count arrives once.

use super::*;
use proptest::prelude::*;

/// Label values the bot uses,
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// and how many of them at a time. Each makes three series.
const LIVE: usize = 4;
/// Too few ids for all, enough for those that live and the remains of one that left.
const TIGHT_IDS: u32 = 15;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The bot counts, observes, and sets its gauge.
    Count { key: usize, by: u32 },
    /// The bot resets a counter. Gathered before and after: nobody can see what happens between two gathers.
    Reset { key: usize },
    /// The bot removes a label set. Gathered before and after.
    Remove { key: usize },
    /// A tick while the manager is away, or before the frame.
    Gather,
    /// A frame arrives and is acknowledged.
    Report,
    /// A frame arrives, its acknowledgement does not, and the stream breaks.
    LoseAck,
    /// A frame is lost with its stream.
    LoseFrame,
    /// The manager asks for a snapshot instead of applying the frame.
    Resync,
    /// The stream breaks between frames.
    Reconnect,
    /// The manager restarts without a memory (of closed instances it would lose counts that nobody else has).
    Forget,
    /// The stream breaks, and the manager closes the instance at what it last applied.
    Close,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..KEYS.len();
    let op = prop_oneof![
        6 => (key.clone(), 1..100_u32).prop_map(|(key, by)| Op::Count { key, by }),
        1 => key.clone().prop_map(|key| Op::Reset { key }),
        1 => key.prop_map(|key| Op::Remove { key }),
        1 => Just(Op::Gather),
        4 => Just(Op::Report),
        1 => Just(Op::LoseAck),
        1 => Just(Op::LoseFrame),
        1 => Just(Op::Resync),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Forget),
        1 => Just(Op::Close),
    ];
    proptest::collection::vec(op, 1..80)
}

/// What the bot did.
#[derive(Default)]
struct Truth {
    counts: [f64; KEYS.len()],
    observations: [f64; KEYS.len()],
    gauges: [Option<f64>; KEYS.len()],
}

/// The pair, and the instances that the receiver closed.
struct World {
    pair: Pair,
    truth: Truth,
    closed: Vec<Receiver>,
    limits: Option<Limits>,
}

impl World {
    fn new(limits: Option<Limits>) -> Self {
        let mut pair = Pair::new();
        pair.open(limits);
        Self { pair, truth: Truth::default(), closed: Vec::new(), limits }
    }

    fn step(&mut self, op: Op) {
        let pair = &mut self.pair;
        match op {
            Op::Count { key, by } => {
                let live = self.truth.gauges.iter().flatten().count();
                if live == LIVE && self.truth.gauges[key].is_none() {
                    return;
                }
                pair.counter.with_label_values(&[KEYS[key]]).inc_by(by.into());
                pair.histogram.with_label_values(&[KEYS[key]]).observe(1.5);
                pair.gauge.with_label_values(&[KEYS[key]]).set(by.into());
                self.truth.counts[key] += f64::from(by);
                self.truth.observations[key] += 1.0;
                self.truth.gauges[key] = Some(by.into());
            }
            Op::Reset { key } => {
                pair.gather();
                if self.truth.gauges[key].is_some() {
                    pair.counter.with_label_values(&[KEYS[key]]).reset();
                }
                pair.gather();
            }
            Op::Remove { key } => {
                pair.gather();
                if self.truth.gauges[key].take().is_some() {
                    pair.counter.remove_label_values(&[KEYS[key]]).unwrap();
                    pair.histogram.remove_label_values(&[KEYS[key]]).unwrap();
                    pair.gauge.remove_label_values(&[KEYS[key]]).unwrap();
                }
                pair.gather();
            }
            Op::Gather => pair.gather(),
            Op::Report => self.report(),
            Op::LoseAck => {
                if let Some(frame) = self.frame() {
                    self.deliver(&frame);
                    self.reconnect();
                }
            }
            Op::LoseFrame => {
                self.frame();
                self.reconnect();
            }
            Op::Resync => {
                if let Some(frame) = self.frame() {
                    // The manager reads definitions all the same.
                    let definitions =
                        frame.messages.iter().filter(|m| matches!(m, Message::Definitions(_)));
                    definitions.for_each(|definitions| self.pair.receiver.apply(definitions));
                    self.pair.ledger.resync();
                }
            }
            Op::Reconnect => self.reconnect(),
            Op::Forget => {
                if self.closed.is_empty() {
                    self.pair.receiver = Receiver::default();
                    self.reconnect();
                }
            }
            Op::Close => {
                let closed = std::mem::take(&mut self.pair.receiver);
                let id = [self.closed.len() as u8 + 2; 16];
                self.pair.ledger.restart(id, closed.last_sequence);
                self.closed.push(closed);
                self.reconnect();
            }
        }
    }

    /// The next frame; none if the stream ran out of ids, after which there is a new one.
    fn frame(&mut self) -> Option<Frame> {
        self.pair.gather();
        let frame = self.pair.ledger.frame().ok();
        if frame.is_none() {
            self.reconnect();
        }
        frame
    }

    fn deliver(&mut self, frame: &Frame) {
        frame.messages.iter().for_each(|message| self.pair.receiver.apply(message));
    }

    fn report(&mut self) {
        loop {
            if let Some(frame) = self.frame() {
                self.deliver(&frame);
                self.pair.ledger.acknowledge();
                return;
            }
        }
    }

    fn reconnect(&mut self) {
        self.pair.open(self.limits);
    }

    fn total(&self, family: &str, key: &str, column: usize) -> f64 {
        let key: Key = (family.to_owned(), vec![("k".to_owned(), key.to_owned())]);
        let instances = self.closed.iter().chain([&self.pair.receiver]);
        instances
            .filter_map(|instance| instance.series.get(&key))
            .map(|known| known.values[column])
            .sum()
    }

    fn gauge(&self, key: &str) -> Option<f64> {
        let key: Key = ("g".to_owned(), vec![("k".to_owned(), key.to_owned())]);
        let known = self.pair.receiver.series.get(&key).filter(|known| known.present);
        known.map(|known| known.values[0])
    }

    fn assert_true(&self) {
        for (index, key) in KEYS.iter().enumerate() {
            let observed = self.truth.observations[index];
            assert_eq!(self.total("c_total", key, 0), self.truth.counts[index], "counter {key}");
            assert_eq!(self.total("h_seconds", key, 0), 0.0, "bucket 1 of {key}");
            assert_eq!(self.total("h_seconds", key, 1), observed, "bucket 2 of {key}");
            assert_eq!(self.total("h_seconds", key, 2), observed, "count of {key}");
            assert_eq!(self.total("h_seconds", key, 3), observed * 1.5, "sum of {key}");
            assert_eq!(self.gauge(key), self.truth.gauges[index], "gauge {key}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_count_arrives_once(ops in ops(), tight in any::<bool>()) {
        // Tight: a snapshot takes several messages, and label sets that came and went use up the ids.
        let limits = tight.then_some(Limits { max_message_bytes: 160, max_series_ids: TIGHT_IDS });
        let mut world = World::new(limits);
        for op in ops {
            world.step(op);
        }
        // With few ids, the first ones make room for what the last one brings.
        for _ in 0..3 {
            world.report();
        }
        world.assert_true();
    }
}
