//! A registry small enough to believe, and a life of it over a log.

use std::collections::BTreeMap;

use super::*;

/// Counters by id.
pub(super) type Counters = BTreeMap<u8, u32>;

/// What is written down of them.
#[derive(Debug, Clone, Copy)]
enum Change {
    Define(u8),
    /// Does not fit a counter that is not defined.
    Set(u8, u32),
    /// One counter of a checkpoint.
    All(u8, u32),
}

impl Change {
    fn encode(self) -> Vec<u8> {
        let (kind, id, value) = match self {
            Self::Define(id) => (b'd', id, 0),
            Self::Set(id, value) => (b's', id, value),
            Self::All(id, value) => (b'a', id, value),
        };
        [&[kind, id][..], &value.to_le_bytes()].concat()
    }

    fn decode(payload: &[u8]) -> Self {
        let value = u32::from_le_bytes(payload[2..].try_into().unwrap());
        match payload[0] {
            b'd' => Self::Define(payload[1]),
            b's' => Self::Set(payload[1], value),
            b'a' => Self::All(payload[1], value),
            _ => panic!("not a record that was written: {payload:?}"),
        }
    }
}

/// Applies a record as the registry would; panics if it does not fit.
fn apply(counters: &mut Counters, record: Record<'_>) {
    match Change::decode(record.payload) {
        Change::Define(id) => assert!(counters.insert(id, 0).is_none(), "{id} is defined twice"),
        Change::All(id, value) => drop(counters.insert(id, value)),
        Change::Set(id, value) => match counters.get_mut(&id) {
            Some(counter) => *counter = value,
            None => assert!(record.in_checkpoint, "{id} is set to {value} but not defined"),
        },
    }
}

/// Every counter of `less` is in `more`, and no higher.
fn assert_holds(more: &Counters, less: &Counters, what: &str) {
    for (id, value) in less {
        assert!(more.get(id) >= Some(value), "{what}: {id} is {value} in {less:?} but {more:?}");
    }
}

/// The registry with its log.
#[derive(Debug)]
pub(super) struct Owner {
    dir: PathBuf,
    disk: FaultyDisk,
    log: Option<Log<FaultyDisk>>,
    counters: Counters,
    /// What was said to survive a kill.
    durable: Counters,
    /// What was said to survive a power cut.
    synced: Counters,
}

impl Owner {
    pub(super) fn new(dir: &Path, disk: &FaultyDisk) -> Self {
        let (counters, durable, synced) = Default::default();
        Self { dir: dir.to_owned(), disk: disk.clone(), log: None, counters, durable, synced }
    }

    /// Everything that happens to a log: counts, syncs, checkpoints with changes in between, one given up, restarts.
    pub(super) fn live(&mut self) {
        self.restart();
        for id in [0, 1, 0] {
            self.count(id);
        }
        self.sync();
        self.count(1);
        self.checkpoint(2, true);
        self.count(0);
        self.sync();
        self.count(3);
        self.checkpoint(4, false);
        self.count(4);
        self.restart();
        self.count(5);
        self.sync();
        self.checkpoint(6, true);
        self.count(6);
        self.sync();
        self.count(0);
    }

    pub(super) fn kill(&mut self) {
        self.log = None;
    }

    /// The process is killed, starts again, and finds what it was promised and no more than there was.
    pub(super) fn restart(&mut self) {
        self.kill();
        let mut counters = Counters::new();
        let opened =
            Log::open_on(self.disk.clone(), &self.dir, |record| apply(&mut counters, record));
        let Ok((log, recovered)) = opened else {
            assert_eq!(self.durable, Counters::new(), "what is there is always shown");
            return;
        };
        assert_holds(&counters, &self.durable, "lost in a kill");
        assert_holds(&self.counters, &counters, "invented");
        for damage in &recovered.damage {
            assert!(matches!(damage.flaw, Flaw::Torn | Flaw::Creation), "{damage}");
        }
        assert_eq!(recovered.broken.is_some(), log.is_broken());
        assert_eq!(log.is_broken(), !log.is_durable());
        if !log.is_broken() {
            self.synced = counters.clone();
        }
        self.durable = counters.clone();
        self.counters = counters;
        self.log = Some(log);
    }

    /// Only what was synced is there, whatever was said to be durable.
    pub(super) fn power_cut(&mut self) {
        self.kill();
        self.disk.power_cut(&self.dir);
        self.durable = self.synced.clone();
    }

    /// Heals the log if it is broken, and counts one.
    pub(super) fn count(&mut self, id: u8) {
        if self.log.as_ref().is_some_and(Log::is_broken) {
            self.checkpoint(id, true);
        }
        self.count_one(id);
    }

    fn count_one(&mut self, id: u8) {
        let mut kept = true;
        if !self.counters.contains_key(&id) {
            kept &= self.append(Change::Define(id));
        }
        let value = self.counters.entry(id).or_default();
        *value += 1;
        let value = *value;
        kept &= self.append(Change::Set(id, value));
        if kept && self.log.as_ref().is_some_and(Log::is_durable) {
            self.durable.insert(id, value);
        }
    }

    fn append(&mut self, change: Change) -> bool {
        self.log.as_mut().is_some_and(|log| log.append(&change.encode()).is_ok())
    }

    fn sync(&mut self) {
        let Some(log) = &mut self.log else { return };
        match log.sync_handle().map(|handle| handle.sync()) {
            Some(Ok(())) if log.is_durable() => self.synced = self.durable.clone(),
            Some(Err(_)) => log.broke(),
            _ => {}
        }
    }

    /// Writes all counters down while others count; or half of them, and then something comes up.
    fn checkpoint(&mut self, new: u8, to_the_end: bool) {
        if self.log.as_mut().is_none_or(|log| log.begin_checkpoint().is_err()) {
            return;
        }
        let ids: Vec<u8> = self.counters.keys().copied().collect();
        for (i, &id) in ids.iter().enumerate() {
            if !to_the_end && i > ids.len() / 2 {
                return;
            }
            self.count_one(*ids.last().unwrap());
            let value = self.counters[&id];
            if !self.append(Change::All(id, value)) {
                return;
            }
            self.count_one(new);
        }
        self.sync();
        if self.log.as_mut().is_some_and(|log| log.end_whole().is_ok()) {
            self.durable = self.counters.clone();
            self.synced = self.counters.clone();
        }
    }
}
