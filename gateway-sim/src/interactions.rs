//! The interactions that wait for their callback, and the rule that each is confirmed once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::books::{Books, Place};
use crate::config::MAX_SHARDS;
use crate::traffic::mix;

/// Interactions remembered, answered or not. With a deadline of 3 s this holds 80,000 a second; older ones are unknown.
const REMEMBERED: usize = 1 << 18;

/// The millisecond in the id of a shard's first interaction; each further one counts it up.
const FIRST_MILLISECOND: u64 = 300_000_000_000;

/// An interaction as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) place: Place,
    pub(crate) command: String,
}

/// Why a callback is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallbackRefusal {
    /// No such interaction, not with this token, or not any more.
    Unknown,
    /// It has been answered.
    Duplicate,
}

#[derive(Debug)]
struct Waiting {
    shard: u32,
    place: Place,
    command: String,
    sent_at: Instant,
    answered: bool,
}

/// All interactions of late.
#[derive(Debug)]
pub(crate) struct Interactions {
    seed: u64,
    deadline: Duration,
    /// How many each shard was sent.
    issued: BTreeMap<u32, u64>,
    waiting: HashMap<u64, Waiting>,
    /// Ids of `waiting`, the oldest first.
    order: VecDeque<u64>,
}

impl Interactions {
    pub(crate) fn new(seed: u64, deadline: Duration) -> Self {
        Self {
            seed,
            deadline,
            issued: BTreeMap::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A new interaction, booked as sent. Its id follows from the shard and how many came before.
    pub(crate) fn issue(
        &mut self,
        books: &mut Books,
        shard: u32,
        place: Place,
        command: &str,
    ) -> Issued {
        let count = self.issued.entry(shard).or_default();
        let id = ((FIRST_MILLISECOND + *count) << 22) | u64::from(shard % MAX_SHARDS);
        *count += 1;
        let key = (place, command.to_owned());
        *books.shard_mut(shard).sent.entry(key).or_default() += 1;
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.waiting.remove(&oldest);
        }
        self.order.push_back(id);
        let command = command.to_owned();
        let waiting = Waiting {
            shard,
            place,
            command: command.clone(),
            sent_at: Instant::now(),
            answered: false,
        };
        self.waiting.insert(id, waiting);
        Issued { id, token: self.token(id), place, command }
    }

    /// Takes a callback: booked as confirmed the first time, refused and booked as such after.
    ///
    /// # Errors
    ///
    /// Why it does not count.
    pub(crate) fn answer(
        &mut self,
        books: &mut Books,
        id: u64,
        token: &str,
    ) -> Result<(), CallbackRefusal> {
        let expected = self.token(id);
        let Some(waiting) = self.waiting.get_mut(&id).filter(|_| token == expected) else {
            books.unknown_callbacks += 1;
            return Err(CallbackRefusal::Unknown);
        };
        let shard = books.shard_mut(waiting.shard);
        if waiting.answered {
            shard.duplicate_callbacks += 1;
            return Err(CallbackRefusal::Duplicate);
        }
        if waiting.sent_at.elapsed() > self.deadline {
            shard.late_callbacks += 1;
            return Err(CallbackRefusal::Unknown);
        }
        waiting.answered = true;
        let key = (waiting.place, waiting.command.clone());
        *shard.confirmed.entry(key).or_default() += 1;
        Ok(())
    }

    fn token(&self, id: u64) -> String {
        format!("{:016x}{:016x}", mix(self.seed, id), mix(!self.seed, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(books: &Books) -> u64 {
        books.confirmed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_interaction_is_confirmed_once() {
        let (mut books, mut all) = (Books::default(), Interactions::new(1, Duration::from_secs(3)));
        let issued = all.issue(&mut books, 2, Place::Dm, "ping");
        assert_eq!(all.answer(&mut books, issued.id, "wrong"), Err(CallbackRefusal::Unknown));
        assert_eq!(confirmed(&books), 0);
        assert_eq!(all.answer(&mut books, issued.id, &issued.token), Ok(()));
        let again = all.answer(&mut books, issued.id, &issued.token);
        assert_eq!(again, Err(CallbackRefusal::Duplicate));
        assert_eq!(confirmed(&books), 1);
        assert_eq!(books.unknown_callbacks, 1);
        assert_eq!(books.shards[&2].duplicate_callbacks, 1);
        assert_eq!(books.shards[&2].confirmed, books.shards[&2].sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_callback_does_not_count() {
        let (mut books, mut all) = (Books::default(), Interactions::new(1, Duration::from_secs(3)));
        let issued = all.issue(&mut books, 0, Place::Guild(9), "stats");
        tokio::time::advance(Duration::from_millis(3_001)).await;
        let late = all.answer(&mut books, issued.id, &issued.token);
        assert_eq!(late, Err(CallbackRefusal::Unknown));
        assert_eq!(books.shards[&0].late_callbacks, 1);
        assert_eq!(confirmed(&books), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_ids_are_unique() {
        let (mut books, mut all) = (Books::default(), Interactions::new(1, Duration::from_secs(3)));
        let first = all.issue(&mut books, 0, Place::Dm, "ping");
        let mut ids = std::collections::HashSet::from([first.id]);
        for number in 0..REMEMBERED {
            let shard = u32::try_from(number % 3).unwrap();
            assert!(ids.insert(all.issue(&mut books, shard, Place::Dm, "ping").id));
        }
        assert_eq!(all.waiting.len(), REMEMBERED);
        assert_eq!(all.order.len(), REMEMBERED);
        let forgotten = all.answer(&mut books, first.id, &first.token);
        assert_eq!(forgotten, Err(CallbackRefusal::Unknown));
    }
}
