//! Random interleavings of everything that can happen to the registry and its journal, against a model that is short
//! enough to believe ([`expected`]): an instance is the last value of each of its series, an exposed count is the sum
//! over all instances ever, a gauge is the newest living instance's.
//!
//! The model advances with every record that is given to the journal, and never otherwise. So what must be there after
//! a kill, or after a cut of the last segment at any byte, is the model as of the last record that is whole.
//!
//! A failure says the seed. More cases, and a failure again:
//! ```text
//! PROPTEST_CASES=1000000 cargo nextest run --release -p shardmeter-manager journal::tests::model
//! PROPTEST_RNG_SEED=<seed> cargo nextest run -p shardmeter-manager journal::tests::model::<test>
//! ```

mod clients;
mod counted;
mod damage;
mod disk;
mod expected;
mod followed;
mod kept;
mod senders;
mod world;

use std::hash::{BuildHasher as _, RandomState};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, RngSeed, TestError, TestRunner},
};

use super::log::faults::Fault;
use clients::CLIENTS;
use expected::{BOUNDS, COUNTERS};
use senders::SENDERS;
use world::World;

/// An event, and what is done besides.
#[derive(Debug, Clone)]
struct Happening {
    event: Event,
    /// The manager is killed at the event's record after so many: just after it was written, or before.
    dies: Option<(usize, bool)>,
    /// Then the manager is started a second time on a copy of the journal.
    restart_copy: bool,
}

#[derive(Debug, Clone)]
enum Event {
    /// A client opens a stream and defines its series, the histogram with some bounds; an older stream of it stays.
    Open { client: usize, bounds: usize },
    /// A client's process is replaced: a new instance, counting from 0.
    Restart(usize),
    /// That, and it reports at once.
    Newcomer(usize, Body),
    /// A client counts and sends a frame on its newest stream, or an older one.
    Frame { client: usize, older: bool, kind: Kind, body: Body },
    /// An HTTP sender counts and posts.
    Post { sender: usize, kind: PostKind, body: Body },
    /// Seconds pass, and the journal is maintained.
    Pass(u64),
    /// A checkpoint, with frames between two of its records; or it is cut off before one.
    Checkpoint { frames_at: Option<usize>, stops_at: Option<usize>, cut: Option<Index> },
    /// The disk fails, after so many operations.
    Break { after: u64, fault: Fault, once: bool },
    /// The journal tries to write again; the disk may be whole again.
    Heal { mend: bool },
    /// Of the manager; the clock is set back by some seconds before it starts again.
    Kill { mend: bool, back: u64 },
    /// The manager is killed, and the end of the newest segment lost.
    PowerCut(Index),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Snapshot,
    Delta,
    /// A counter, the gauge and the histogram leave, with their final values.
    Removed,
    Duplicate,
    Gap,
    UndefinedId,
    Falls,
    Goodbye,
    GoodbyeTooLate,
}

#[derive(Debug, Clone, Copy)]
enum PostKind {
    Next,
    /// The last body once more.
    Again,
    /// An older body arrives late.
    Late(usize),
    /// A counter is set to 0 before.
    Reset(usize),
    ResetHistogram,
    /// The process is another since the last.
    Restart,
}

/// What is counted before a report, and what the report names.
#[derive(Debug, Clone)]
struct Body {
    more: [u8; COUNTERS.len()],
    observed: [u8; 4],
    /// The counters and the histogram.
    names: [bool; COUNTERS.len() + 1],
    gauge: Option<i8>,
    /// The histogram's, of an HTTP sender.
    bounds: usize,
}

/// How often what happens.
struct Weights {
    streams: u32,
    posts: u32,
    newcomers: u32,
    restarts: u32,
    faults: u32,
}

fn bounds() -> impl Strategy<Value = usize> {
    prop_oneof![5 => Just(0), 2 => 1..BOUNDS.len()]
}

fn body() -> impl Strategy<Value = Body> {
    let names = prop::array::uniform4(prop::bool::weighted(0.8));
    let observed = prop::array::uniform4(0..3_u8);
    let more = prop::array::uniform3(0..5_u8);
    (more, observed, names, prop::option::weighted(0.7, any::<i8>()), bounds()).prop_map(
        |(more, observed, names, gauge, bounds)| Body { more, observed, names, gauge, bounds },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    use Kind::{
        Delta, Duplicate, Falls, Gap, Goodbye, GoodbyeTooLate, Removed, Snapshot, UndefinedId,
    };
    prop_oneof![
        6 => Just(Snapshot), 10 => Just(Delta), 2 => Just(Removed), 1 => Just(Duplicate), 1 => Just(Gap),
        1 => Just(UndefinedId), 1 => Just(Falls), 2 => Just(Goodbye), 1 => Just(GoodbyeTooLate),
    ]
}

fn post_kind() -> impl Strategy<Value = PostKind> {
    prop_oneof![
        6 => Just(PostKind::Next),
        1 => Just(PostKind::Again),
        1 => (1..4_usize).prop_map(PostKind::Late),
        1 => (0..COUNTERS.len()).prop_map(PostKind::Reset),
        1 => Just(PostKind::ResetHistogram),
        2 => Just(PostKind::Restart),
    ]
}

fn events(weights: &Weights) -> impl Strategy<Value = Event> + use<> {
    let index = any::<Index>;
    let step = || prop::option::of(0..9_usize);
    let frame = (0..CLIENTS, prop::bool::weighted(0.1), kind(), body());
    let checkpoint = (step(), prop::option::weighted(0.3, 0..9_usize), prop::option::of(index()));
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Short), Just(Fault::Halfway)];
    prop_oneof![
        3 * weights.streams => (0..CLIENTS, bounds()).prop_map(|(client, bounds)| Event::Open { client, bounds }),
        weights.streams => (0..CLIENTS).prop_map(Event::Restart),
        10 * weights.streams => frame.prop_map(|(client, older, kind, body)| Event::Frame { client, older, kind, body }),
        weights.newcomers => (0..CLIENTS, body()).prop_map(|(client, body)| Event::Newcomer(client, body)),
        weights.posts => (0..SENDERS, post_kind(), body()).prop_map(|(sender, kind, body)| Event::Post { sender, kind, body }),
        10 => prop_oneof![4 => 1..20_u64, 2 => Just(31), 1 => Just(3601)].prop_map(Event::Pass),
        weights.restarts => checkpoint.prop_map(|(frames_at, stops_at, cut)| Event::Checkpoint { frames_at, stops_at, cut }),
        weights.restarts => (any::<bool>(), prop_oneof![5 => Just(0), 1 => 1..100_u64]).prop_map(|(mend, back)| Event::Kill { mend, back }),
        weights.restarts => index().prop_map(Event::PowerCut),
        weights.faults => (0..6_u64, fault, any::<bool>()).prop_map(|(after, fault, once)| Event::Break { after, fault, once }),
        2 * weights.faults => prop::bool::weighted(0.8).prop_map(|mend| Event::Heal { mend }),
    ]
}

fn happenings(weights: &Weights, most: usize) -> impl Strategy<Value = Vec<Happening>> + use<> {
    let dies = prop::option::weighted(0.05, (0..4_usize, any::<bool>()));
    let happening = (events(weights), dies, prop::bool::weighted(0.2))
        .prop_map(|(event, dies, restart_copy)| Happening { event, dies, restart_copy });
    prop::collection::vec(happening, 1..most)
}

/// Runs as many cases as `PROPTEST_CASES` says, or `cases`. Every [`BATCH`] of them has a seed of its own, so that what
/// fails among a million fails again soon.
fn check<T: std::fmt::Debug>(cases: u32, strategy: &impl Strategy<Value = T>, test: impl Fn(&T)) {
    let config = ProptestConfig {
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    };
    let asked = std::env::var("PROPTEST_CASES").is_ok();
    let mut left = if asked { config.cases } else { cases };
    let mut seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    // The journal waits between attempts to heal: time stands still but for the events.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let _paused = runtime.enter();
    while left > 0 {
        let (cases, rng_seed) = (left.min(BATCH), RngSeed::Fixed(seed));
        let mut runner = TestRunner::new(ProptestConfig { cases, rng_seed, ..config.clone() });
        let run = runner.run(strategy, |case| {
            test(&case);
            Ok(())
        });
        if let Err(failure) = run {
            let failure = match failure {
                TestError::Fail(reason, case) => {
                    format!("{reason}\n{}", format!("{case:?}").replace("Happening", "\nHappening"))
                }
                TestError::Abort(reason) => reason.to_string(),
            };
            panic!("PROPTEST_RNG_SEED={seed}\n{failure}");
        }
        left -= cases;
        seed = seed.wrapping_add(1);
    }
}

const BATCH: u32 = 256;

fn as_the_model(cases: u32, most: usize, weights: &Weights) {
    check(cases, &happenings(weights, most), |happenings| {
        let mut world = World::new();
        for happening in happenings {
            world.happens(happening);
        }
    });
}

#[test]
fn streams_are_counted_as_the_model_counts() {
    as_the_model(
        2000,
        60,
        &Weights { streams: 5, posts: 10, newcomers: 1, restarts: 5, faults: 2 },
    );
}

#[test]
fn posts_are_counted_as_the_model_counts() {
    as_the_model(
        2000,
        60,
        &Weights { streams: 2, posts: 60, newcomers: 1, restarts: 5, faults: 2 },
    );
}

#[test]
fn a_crowd_is_counted_as_the_model_counts() {
    as_the_model(
        500,
        120,
        &Weights { streams: 1, posts: 5, newcomers: 40, restarts: 2, faults: 1 },
    );
}

/// What comes after a damaged byte in its segment is lost, and nothing else: counts are what they were or less, and who
/// lives brings its own back.
#[test]
fn a_damaged_byte_adds_nothing_and_stops_nobody() {
    let weights = Weights { streams: 5, posts: 10, newcomers: 2, restarts: 4, faults: 1 };
    let strategy = (happenings(&weights, 40), any::<Index>(), any::<Index>(), 1..=u8::MAX);
    check(800, &strategy, |(happenings, segment, byte, flip)| {
        let mut world = World::new();
        for happening in happenings {
            world.happens(happening);
        }
        world.damage(*segment, *byte, *flip);
    });
}

/// However much is reported, the disk holds no more than twice what a checkpoint needs, or that and a floor.
#[test]
fn the_disk_holds_what_lives_twice_at_most() {
    for (series, changing, maintained_every) in
        [(10, 10, 30), (1500, 400, 7), (1500, 3, 100), (300, 300, 20)]
    {
        damage::report_for_long(series, changing, maintained_every);
    }
}
