//! Who may start a session: the checks on an identify, and the limits on how often.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::books::{Books, IdentifyAttempt};
use crate::config::{Config, MAX_SHARDS};

/// Intents that exist: bits 0 to 16, 20, 21, 24 and 25.
const INTENTS: u64 = 0x1_ffff | 1 << 20 | 1 << 21 | 1 << 24 | 1 << 25;
/// Intents that need an approval this bot does not have: members, presences, message content.
const PRIVILEGED: u64 = 1 << 1 | 1 << 8 | 1 << 15;
/// Guild events.
pub(super) const GUILDS: u64 = 1;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Close codes, as in Discord's documentation of gateway close event codes.
pub(super) mod close {
    pub(crate) const UNKNOWN_OPCODE: u16 = 4001;
    pub(crate) const DECODE_ERROR: u16 = 4002;
    pub(crate) const NOT_AUTHENTICATED: u16 = 4003;
    pub(crate) const AUTHENTICATION_FAILED: u16 = 4004;
    pub(crate) const ALREADY_AUTHENTICATED: u16 = 4005;
    pub(crate) const INVALID_SEQUENCE: u16 = 4007;
    pub(crate) const RATE_LIMITED: u16 = 4008;
    pub(crate) const SESSION_TIMED_OUT: u16 = 4009;
    pub(crate) const INVALID_SHARD: u16 = 4010;
    pub(crate) const SHARDING_REQUIRED: u16 = 4011;
    pub(crate) const INVALID_API_VERSION: u16 = 4012;
    pub(crate) const INVALID_INTENTS: u16 = 4013;
    pub(crate) const DISALLOWED_INTENTS: u16 = 4014;

    /// Whether the session is over with a close frame of this code, sent by the gateway.
    pub(crate) fn ends_session(code: u16) -> bool {
        matches!(
            code,
            AUTHENTICATION_FAILED
                | INVALID_SEQUENCE
                | SESSION_TIMED_OUT
                | INVALID_SHARD
                | SHARDING_REQUIRED
                | INVALID_API_VERSION
                | INVALID_INTENTS
                | DISALLOWED_INTENTS
        )
    }
}

/// An identify that may start a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identify {
    pub(crate) shard: u32,
    pub(crate) shard_count: u32,
    pub(crate) intents: u64,
}

impl Identify {
    /// Reads the data of an identify payload.
    ///
    /// # Errors
    ///
    /// The close code to answer with.
    pub(super) fn read(data: &Value, config: &Config) -> Result<Self, u16> {
        if !data.is_object() || !data.get("properties").is_some_and(Value::is_object) {
            return Err(close::DECODE_ERROR);
        }
        let token = data.get("token").and_then(Value::as_str).unwrap_or_default();
        if !config.accepts(token) {
            return Err(close::AUTHENTICATION_FAILED);
        }
        let (shard, shard_count) = match data.get("shard") {
            None | Some(Value::Null) => (0, 1),
            Some(shard) => read_shard(shard).ok_or(close::INVALID_SHARD)?,
        };
        let intents = data.get("intents").and_then(Value::as_u64);
        let intents = intents.filter(|intents| intents & !INTENTS == 0);
        let intents = intents.ok_or(close::INVALID_INTENTS)?;
        if intents & PRIVILEGED != 0 {
            return Err(close::DISALLOWED_INTENTS);
        }
        Ok(Self { shard, shard_count, intents })
    }
}

fn read_shard(stated: &Value) -> Option<(u32, u32)> {
    let [shard, count] = stated.as_array()?.as_slice() else {
        return None;
    };
    let shard = u32::try_from(shard.as_u64()?).ok()?;
    let count = u32::try_from(count.as_u64()?).ok()?;
    (shard < count && count <= MAX_SHARDS).then_some((shard, count))
}

/// Session starts: Discord's limit of one identify per key in 5 s, and the number per day.
#[derive(Debug)]
pub(crate) struct Starts {
    max_concurrency: u16,
    window: Duration,
    per_day: u32,
    began: Instant,
    /// When each key was used last; there are as many as `max_concurrency`.
    keys: HashMap<u32, Instant>,
    used: u32,
    resets_at: Option<Instant>,
}

/// Why a session may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// Another of its key was too recent.
    OfKey,
    /// The day's are used up.
    OfDay,
}

/// The numbers of `/gateway/bot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SessionStartLimit {
    total: u32,
    remaining: u32,
    reset_after: u64,
    max_concurrency: u16,
}

impl Starts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            max_concurrency: config.max_concurrency,
            window: config.identify_window,
            per_day: config.identifies_per_day,
            began: Instant::now(),
            keys: HashMap::new(),
            used: 0,
            resets_at: None,
        }
    }

    /// Counts and books a session start, unless a limit forbids it.
    ///
    /// # Errors
    ///
    /// Which limit; booked as well.
    pub(crate) fn admit(
        &mut self,
        books: &mut Books,
        shard: u32,
        now: Instant,
    ) -> Result<(), TooMany> {
        let admitted = self.check(shard, now);
        let key = shard.checked_rem(u32::from(self.max_concurrency));
        if let Some(key) = key.filter(|_| admitted != Err(TooMany::OfDay)) {
            let at = now.saturating_duration_since(self.began);
            books.identify(key, IdentifyAttempt { shard, at, admitted: admitted.is_ok() });
        }
        match admitted {
            Ok(()) => {}
            Err(TooMany::OfKey) => {
                let shard = books.shard_mut(shard);
                shard.identifies_refused += 1;
                *shard.invalid_sessions.entry(false).or_default() += 1;
            }
            Err(TooMany::OfDay) => books.token_resets += 1,
        }
        admitted
    }

    fn check(&mut self, shard: u32, now: Instant) -> Result<(), TooMany> {
        self.reset_when_due(now);
        if self.used >= self.per_day {
            return Err(TooMany::OfDay);
        }
        if let Some(key) = shard.checked_rem(u32::from(self.max_concurrency)) {
            let last = self.keys.get(&key);
            if last.is_some_and(|last| now.duration_since(*last) < self.window) {
                return Err(TooMany::OfKey);
            }
            self.keys.insert(key, now);
        }
        self.used += 1;
        self.resets_at.get_or_insert(now + DAY);
        Ok(())
    }

    pub(crate) fn limit(&mut self, now: Instant) -> SessionStartLimit {
        self.reset_when_due(now);
        let left = self.resets_at.map_or(DAY, |at| at.saturating_duration_since(now));
        SessionStartLimit {
            total: self.per_day,
            remaining: self.per_day.saturating_sub(self.used),
            reset_after: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            max_concurrency: self.max_concurrency,
        }
    }

    fn reset_when_due(&mut self, now: Instant) {
        if self.resets_at.is_some_and(|at| at <= now) {
            (self.used, self.resets_at) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(data: &Value) -> Result<Identify, u16> {
        Identify::read(data, &Config::default())
    }

    #[test]
    fn a_wrong_identify_gets_its_close_code() {
        let good =
            json!({"token": "Bot t", "intents": 1, "shard": [1, 4], "properties": {"os": "x"}});
        assert_eq!(read(&good), Ok(Identify { shard: 1, shard_count: 4, intents: 1 }));
        let without = |field: &str, value: Value| {
            let mut data = good.clone();
            data[field] = value;
            read(&data)
        };
        assert_eq!(without("token", json!("Bot ")), Err(4004));
        assert_eq!(without("token", json!(5)), Err(4004));
        assert_eq!(without("shard", json!([4, 4])), Err(4010));
        assert_eq!(without("shard", json!([0])), Err(4010));
        assert_eq!(without("shard", json!([0, MAX_SHARDS + 1])), Err(4010));
        assert_eq!(without("intents", json!(1 << 17)), Err(4013));
        assert_eq!(without("intents", json!("1")), Err(4013));
        assert_eq!(without("intents", json!(1 << 15)), Err(4014));
        assert_eq!(without("properties", Value::Null), Err(4002));
        assert_eq!(read(&json!([])), Err(4002));
        let alone = without("shard", Value::Null);
        assert_eq!(alone.map(|identify| identify.shard_count), Ok(1));
    }

    fn starts(max_concurrency: u16, identifies_per_day: u32) -> (Starts, Books) {
        let config = Config { max_concurrency, identifies_per_day, ..Config::default() };
        (Starts::new(&config), Books::default())
    }

    #[test]
    fn a_key_admits_one_identify_per_window() {
        let (mut starts, mut books) = starts(2, 100);
        let now = starts.began;
        let mut admit = |shard, after| starts.admit(&mut books, shard, now + after);
        assert_eq!([admit(0, Duration::ZERO), admit(1, Duration::ZERO)], [Ok(()); 2]);
        let early = Duration::from_millis(4_499);
        assert_eq!(admit(2, early), Err(TooMany::OfKey), "shard 2 shares the key of shard 0");
        assert_eq!(admit(2, Duration::from_secs(5)), Ok(()));
        assert_eq!(starts.limit(now).remaining, 97);
        let tomorrow = starts.limit(now + DAY);
        assert_eq!((tomorrow.remaining, tomorrow.total), (100, 100));
        assert_eq!(books.identify_breaches(), 1);
        assert_eq!(books.shards[&2].identifies_refused, 1);
        let attempts: Vec<_> = books.identify_keys[&0].attempts.iter().collect();
        assert_eq!(attempts.len(), 3);
        assert_eq!(*attempts[1], IdentifyAttempt { shard: 2, at: early, admitted: false });
        assert_eq!(
            (books.identify_keys[&1].attempts.len(), books.identify_keys[&1].breaches),
            (1, 0)
        );
    }

    #[test]
    fn without_a_concurrency_only_the_day_limits() {
        let (mut starts, mut books) = starts(0, 1_000);
        let now = Instant::now();
        assert!((0..1_000).all(|_| starts.admit(&mut books, 0, now).is_ok()));
        assert_eq!(starts.admit(&mut books, 0, now), Err(TooMany::OfDay));
        assert_eq!((books.token_resets, books.identify_breaches()), (1, 0));
        assert_eq!(starts.admit(&mut books, 0, now + DAY), Ok(()));
    }
}
