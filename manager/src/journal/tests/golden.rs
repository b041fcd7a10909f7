//! The journal's form, held down by two committed segments.

use super::*;

/// Everything that is recorded, so that [`a_journal_of_this_version_stays_readable`] would notice a change of its form.
fn everything(registry: &Registry) {
    use crate::registry::{
        Report,
        tests::{family, named, post, report},
    };
    let (mut first, _) = begin(registry, 1, 5.0, at(0));
    let h = first.define_bounded(HISTOGRAM, "h_seconds", &[("l", "x")], &[0.5, 1.0]);
    first.delta(2, &[(h, &[1.0, 2.0, 3.0, 0.1])], at(1)).unwrap();
    first.writer.goodbye(2, at(2)).unwrap();
    let (mut second, _) = begin(registry, 2, 7.0, at(3));
    let h = second.define_bounded(HISTOGRAM, "h_seconds", &[("l", "x")], &[0.5, 2.0]);
    second.send(FrameKind::Delta, 2, &[(h, &[1.0, 1.0, 1.0, 0.2])], &[(1, &[9.0])], at(4)).unwrap();
    let mut defined = open_shard(registry, 1, 3, at(4));
    defined.define(COUNTER, "gives_way", &[]);
    let counts =
        |a, b| [family(COUNTER, "posts_total", &[(&[("n", "1")], &[a]), (&[("n", "2")], &[b])])];
    let (one, other) = (counts(3.0, 4.0), counts(1.0, 5.0));
    for (started, families) in [(1, &one), (9, &other)] {
        let (started_at, interval) = (Some(at(started)), Some(Duration::from_secs(20)));
        let told =
            Report { started_at, interval, sequence: Some(3), ..report(named("a"), families) };
        registry.report(&[told], at(10)).unwrap();
    }
    post(registry, InstanceKey::Anonymous, &one, at(11)).unwrap();
    post(registry, InstanceKey::Anonymous, &other, at(12)).unwrap();
    post(registry, named("b"), &[family(GAUGE, "gives_way", &[(&[], &[f64::NAN])])], at(12))
        .unwrap();
    post(
        registry,
        named("b"),
        &[family(COUNTER, "c", &[(&[], &[1.0])]), family(GAUGE, "c", &[(&[], &[1.0])])],
        at(13),
    )
    .unwrap();
}

#[test]
fn a_journal_of_this_version_stays_readable() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = TempDir::new().unwrap();
    let run = Run::start(&dir, at(0));
    everything(&run.registry);
    let expected = page(&run.registry, at(13));
    let written =
        ["journal-0000000001.log", "journal-0000000002.log"].map(|name| dir.path().join(name));
    let kept = ["journal-changes.log", "journal-checkpoint.log"].map(|name| golden.join(name));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::copy(&written[0], &kept[0]).unwrap();
        run.journal.renew(&run.registry, at(13));
        std::fs::copy(&written[1], &kept[1]).unwrap();
    }
    for (segment, name) in kept.iter().zip(["journal-0000000001.log", "journal-0000000002.log"]) {
        let dir = TempDir::new().unwrap();
        std::fs::copy(segment, dir.path().join(name)).unwrap();
        let restored = Run::start(&dir, at(13));
        assert_eq!(
            page(&restored.registry, at(13)),
            expected,
            "{name}: raise VERSION in journal/log/format.rs, and say what becomes of journals of before"
        );
    }
}
