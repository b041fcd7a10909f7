//! Bots that come, go, return and count, with tiny limits, restarts of the manager and other limits after them: what all
//! series of a family show together is what was counted, and no total falls.

use proptest::prelude::*;

use super::*;

/// One process of the bot, and what it counted since it began, by label.
#[derive(Debug, Default)]
struct Process {
    key: u8,
    sequence: u64,
    counts: BTreeMap<u8, f64>,
    /// Labels that its registry has now.
    present: BTreeMap<u8, ()>,
    is_open: bool,
}

#[derive(Debug, Clone)]
enum Event {
    /// One of the processes counts and reports.
    Count {
        process: usize,
        label: u8,
        more: u8,
    },
    /// A label leaves its registry.
    Remove {
        process: usize,
        label: u8,
    },
    /// Its stream ends, and it says everything on the next.
    Cut {
        process: usize,
    },
    /// It ends, with a goodbye or not, and another begins.
    End {
        process: usize,
        goodbye: bool,
    },
    Pass(u64),
    /// The manager is started again, from a checkpoint or from the log, with other limits.
    Restart {
        checkpoint: bool,
        limit: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let process = 0..4_usize;
    let label = 0..9_u8;
    let event = prop_oneof![
        8 => (process.clone(), label.clone(), 0..9_u8)
            .prop_map(|(process, label, more)| Event::Count { process, label, more }),
        2 => (process.clone(), label).prop_map(|(process, label)| Event::Remove { process, label }),
        1 => process.clone().prop_map(|process| Event::Cut { process }),
        1 => (process, any::<bool>()).prop_map(|(process, goodbye)| Event::End { process, goodbye }),
        1 => prop_oneof![Just(1), Just(STALE), Just(DEAD)].prop_map(Event::Pass),
        1 => (any::<bool>(), 1..7_usize)
            .prop_map(|(checkpoint, limit)| Event::Restart { checkpoint, limit }),
    ];
    proptest::collection::vec(event, 1..80)
}

struct World {
    registry: Arc<Registry>,
    changes: Arc<Mutex<Vec<Change<'static>>>>,
    writers: BTreeMap<usize, Writer>,
    processes: Vec<Process>,
    keys: u8,
    /// What was counted and taken.
    counted: f64,
    now: UnixTime,
}

fn settings(limit: usize) -> Settings {
    Settings { max_series_per_family: limit, max_series_per_shard: 6, ..Settings::default() }
}

fn owned(changes: &[Change<'_>]) -> Vec<Change<'static>> {
    let record = postcard::to_allocvec(changes).unwrap();
    postcard::from_bytes(Box::leak(record.into_boxed_slice())).unwrap()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            registry: Arc::new(Registry::new(settings(2), [])),
            changes: Arc::default(),
            writers: BTreeMap::new(),
            processes: Vec::new(),
            keys: 0,
            counted: 0.0,
            now: at(0),
        };
        world.record();
        for n in 0..4 {
            world.processes.push(Process::default());
            world.begin(n);
        }
        world
    }

    fn record(&self) {
        let changes = Arc::clone(&self.changes);
        self.registry.record_to(Box::new(move |said| {
            changes.lock().extend(owned(said));
            true
        }));
    }

    /// Odd processes post, even ones have streams.
    fn begin(&mut self, process: usize) {
        self.writers.remove(&process);
        self.keys = self.keys.wrapping_add(1);
        self.processes[process] = Process { key: self.keys, ..Process::default() };
    }

    fn restart(&mut self, from_checkpoint: bool, limit: usize) {
        self.writers.clear();
        let changes =
            if from_checkpoint { checkpoint(&self.registry) } else { self.changes.lock().clone() };
        let before = exposed(&self.registry, self.now);
        let registry = restored(&changes, settings(limit));
        registry.resume(self.now);
        assert_eq!(exposed(&registry, self.now), before);
        self.changes = Arc::new(Mutex::new(checkpoint(&registry)));
        self.registry = Arc::new(registry);
        self.record();
    }

    fn report(&mut self, process: usize) {
        if process % 2 == 1 { self.post(process) } else { self.stream(process) }
    }

    fn post(&mut self, process: usize) {
        let p = &self.processes[process];
        let texts: Vec<_> = p.present.keys().map(|l| (l.to_string(), [p.counts[l]])).collect();
        let pairs: Vec<_> = texts.iter().map(|(l, count)| ([("l", l.as_str())], count)).collect();
        let series: Vec<(Pairs<'_>, &[f64])> =
            pairs.iter().map(|(pairs, count)| (&pairs[..], &count[..])).collect();
        let body = [family(COUNTER, "x_total", &series)];
        let key = named(&p.key.to_string());
        match post(&self.registry, key, &body, self.now) {
            Ok(_) => {}
            Err(ReportError::Closed) => self.begin(process),
            Err(error) => panic!("{error}"),
        }
    }

    fn stream(&mut self, process: usize) {
        for _ in 0..5 {
            let p = &mut self.processes[process];
            if !p.is_open {
                let attached = attach(&self.registry, 0, 1, p.key, self.now).unwrap();
                if attached.closed_at.is_some() {
                    self.begin(process);
                    return;
                }
                self.writers.insert(process, attached.writer);
            }
            if self.snapshot(process) {
                self.processes[process].is_open = true;
                return;
            }
            self.processes[process].is_open = false;
        }
        panic!("it is told to reconnect without end");
    }

    /// Says everything on a new stream, or what there is on one that is open. False: it has to reconnect.
    fn snapshot(&mut self, process: usize) -> bool {
        let p = &mut self.processes[process];
        let Some(writer) = self.writers.get_mut(&process) else { return false };
        let head = FamilyHead { name: "x_total", kind: COUNTER, help: "", unit: "" };
        let mut columns = (Vec::new(), Vec::new());
        // Labels are defined in order, all there may be: each has the same id on every stream.
        if writer.ids() == 0 {
            for label in p.present.keys() {
                let id = writer.ids() as u32;
                let labels = labels(&[("l", &label.to_string())], 0);
                let series = vec![SeriesDefinition { id, labels, bounds: Bounds::none() }];
                let defined =
                    self.registry.define(writer, FamilyDefinition { head, series }, self.now);
                match defined {
                    Ok(()) => {}
                    Err(DefineError::Rearranged) => return false,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        for (id, label) in (0..).zip(p.present.keys()) {
            columns.0.push(id);
            columns.1.push(p.counts[label]);
        }
        p.sequence += 1;
        let frame = Frame {
            kind: FrameKind::Snapshot,
            sequence: p.sequence,
            samples: Samples { ids: &columns.0, values: &columns.1 },
            removed: Samples::default(),
            exemplars: &[],
        };
        match writer.apply(frame, self.now) {
            Ok(Outcome::Applied(applied)) => {
                assert_eq!(applied.samples, columns.0.len(), "{:?}", applied.rejected);
                true
            }
            Err(FrameError::Rearranged | FrameError::Closed) => false,
            other => panic!("{other:?}"),
        }
    }

    /// What changes the labels of a process makes it begin another stream, for the ids' sake.
    fn cut(&mut self, process: usize) {
        self.writers.remove(&process);
        self.processes[process].is_open = false;
    }

    fn total(&self) -> f64 {
        exposed(&self.registry, self.now).values().map(|values| values[0]).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn totals_are_what_was_counted(events in events()) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Count { process, label, more } => {
                    let p = &mut world.processes[process];
                    if p.present.insert(label, ()).is_none() {
                        world.cut(process);
                    }
                    let before = world.processes[process].key;
                    *world.processes[process].counts.entry(label).or_default() += f64::from(more);
                    world.report(process);
                    // Unless it was told to start over, what it counted is taken.
                    if world.processes[process].key == before {
                        world.counted += f64::from(more);
                    }
                }
                Event::Remove { process, label } => {
                    if world.processes[process].present.remove(&label).is_some() {
                        world.cut(process);
                        world.report(process);
                    }
                }
                Event::Cut { process } => world.cut(process),
                Event::End { process, goodbye } => {
                    let sequence = world.processes[process].sequence;
                    if let Some(mut writer) = world.writers.remove(&process).filter(|_| goodbye) {
                        let _ = writer.goodbye(sequence, world.now);
                    }
                    world.begin(process);
                }
                Event::Pass(seconds) => world.now = world.now + Duration::from_secs(seconds),
                Event::Restart { checkpoint, limit } => {
                    world.restart(checkpoint, limit);
                    world.processes.iter_mut().for_each(|p| p.is_open = false);
                }
            }
            prop_assert_eq!(world.total(), world.counted);
        }
    }
}
