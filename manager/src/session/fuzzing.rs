//! Streams of several shards that say anything, in turns.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what fuzz targets do")]

mod explained;
mod peer;
mod seen;

use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    time::advance,
};

use super::*;
use crate::{
    clock::UnixTime,
    exposition::{self, Format, Syntax},
    fuzzing::{Input, page::Family, registry_with_rules, valid, valid_page},
    model::Escaping,
    registry::Change,
};
use peer::Peer;
use seen::Seen;

/// Streams at once.
const STREAMS: usize = 4;

/// Messages that are looked at.
const MESSAGES: usize = 50;

const FORMAT: Format = Format::new(Syntax::Text, Escaping::AllowUtf8);

thread_local! {
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new().unwrap());
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
}

/// No message panics; one that is refused changes nothing; what a stream says changes no other shard's lines; pages are
/// valid, and no count on them falls; and what was recorded makes the same page again.
pub fn frames(input: &[u8]) {
    let mut input = Input(input);
    let (limits, rules) = (input.byte(), input.byte());
    let registry = registry(limits, rules);
    let recorded = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let sink = Arc::clone(&recorded);
    registry.record_to(Box::new(move |changes| {
        sink.lock().push(postcard::to_allocvec(changes).unwrap());
        true
    }));
    registry.apply_rules();
    let clock = RUNTIME.with(|runtime| {
        let _entered = runtime.enter();
        Clock::starting_at(UnixTime::from_secs_f64(1.7e9))
    });
    let sessions = Sessions::of(registry, METRICS.with(Arc::clone));
    let sessions = Arc::new(Sessions { clock, ..sessions });
    let now = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            talk(&sessions, input).await;
            sessions.clock.now()
        })
    });
    let again = self::registry(limits, rules);
    for record in recorded.lock().iter() {
        for change in postcard::from_bytes::<Vec<Change<'_>>>(record).unwrap() {
            again.restore(change).unwrap();
        }
    }
    let [before, after] = [&sessions.registry, &again].map(|registry| {
        let page = page(registry, now);
        String::from_utf8_lossy(&page).into_owned()
    });
    assert_eq!(after, before, "restored");
}

/// With rules, or without.
fn registry(limits: u8, rules: u8) -> Registry {
    let rules = match rules % 8 {
        0 => json!([{ "family": "a.*", "drop_labels": ["x", "y"], "gauges": "sum" }]),
        1 => json!([{ "family": "b.*|h", "collapse_shards": true, "gauges": "avg" }]),
        2 => json!([
            { "family": "a.*", "action": "drop" },
            { "family": ".*", "drop_labels": ["y"], "gauges": "max" },
        ]),
        _ => json!([]),
    };
    registry_with_rules(limits, serde_json::from_value(rules).unwrap())
}

fn page(registry: &Registry, now: UnixTime) -> Vec<u8> {
    exposition::render(registry, &[], now, FORMAT).to_vec()
}

async fn talk(sessions: &Arc<Sessions>, mut input: Input<'_>) {
    let channels: Vec<_> = (0..STREAMS).map(|_| mpsc::channel(ANSWERS)).collect();
    let (answers, mut answered): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
    let mut peers: Vec<_> =
        answers.iter().map(|answers| Peer::connect(sessions, answers)).collect();
    let mut before = Seen::after(None, sessions).unwrap();
    for _ in 0..MESSAGES {
        if input.is_empty() {
            break;
        }
        if input.rarely(16) {
            before = pass(sessions, &mut input, before).await;
        }
        let at = usize::from(input.below(STREAMS as u8));
        let said = peers[at].say(&mut input);
        let told = format!("{said:?}");
        let shard_id = peers[at].shard_id(&said);
        let outcome = peers[at].session.answer(Some(said).into()).await;
        let answer = answered[at].try_recv().ok();
        assert!(answered[at].try_recv().is_err(), "two answers to {told}");
        if let Some(now) = Seen::after(Some(&before), sessions) {
            assert!(!is_refused(&outcome), "refused, and not without effect: {told}");
            assert!(!is_resync(answer.as_ref()), "unused, and not without effect: {told}");
            now.check_others(&before, shard_id, &told);
            now.check_none_fell(&before, &told);
            before = now;
        }
        peers[at].heard(answer);
        if outcome.is_err() {
            peers[at] = Peer::connect(sessions, &answers[at]);
        }
    }
    explained::check(&sessions.registry, sessions.clock.now());
    for format in [Syntax::Text, Syntax::OpenMetrics, Syntax::Protobuf] {
        let format = Format::new(format, input.pick(&Escaping::ALL));
        valid_page(&sessions.registry, sessions.clock.now(), format);
    }
}

/// Time passes, or an operator forgets a shard; and the registry is looked after.
async fn pass(sessions: &Sessions, input: &mut Input<'_>, before: Seen) -> Seen {
    let Sessions { registry, clock, .. } = sessions;
    let seconds = input.pick(&[1, 10, 31, 100, 3601, 0]);
    if seconds == 0 {
        registry.forget(input.below(3).into(), clock.now());
        return Seen::after(None, sessions).unwrap();
    }
    advance(Duration::from_secs(seconds)).await;
    registry.count();
    registry.yield_types(clock.now());
    let Some(now) = Seen::after(Some(&before), sessions) else { return before };
    now.check_none_fell(&before, "time passed");
    now
}

/// Whether something is wrong with a message. A shard may be put in order anew before one is taken, which ends its streams.
fn is_refused(outcome: &Result<(), End>) -> bool {
    matches!(outcome, Err(End::Refused(status)) if status.code() != Code::Unavailable)
}

fn is_resync(answer: Option<&Result<ReportResponse, Status>>) -> bool {
    let message = answer.and_then(|answer| answer.as_ref().ok()?.message.as_ref());
    matches!(message, Some(Answer::Resync(_)))
}
