//! Turns leased in Redis, one key at a time.

use std::time::Duration;

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, Script, ServerErrorKind,
    aio::MultiplexedConnection,
};
use tokio::time::Instant;

/// A Redis next door answers in a millisecond; one that takes this long is away.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Takes the turn of a key (`KEYS[1]`) for `ARGV[1]` milliseconds and says 0, or says in how many milliseconds to ask again.
///
/// A Redis that was emptied has forgotten who identified just now: it gives no turn before `ARGV[2]` milliseconds are over.
///
/// One that began anew may have its keys from its disk, or from another that it followed, but not this script: see
/// [`Lease::ask`].
const TAKE: &str = r"
if redis.call('SET', KEYS[2], '1', 'NX') then
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
end
local quiet = redis.call('PTTL', KEYS[3])
if quiet > 0 then
  return quiet
end
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  return 0
end
return math.max(redis.call('PTTL', KEYS[1]), 1)";

/// Everything begins so; the braces keep it on one node of a Redis cluster.
const PREFIX: &str = "shardmeter:{identify}";

/// As long as it is there, nobody has a turn.
const QUIET: &str = "shardmeter:{identify}:quiet";

/// Redis does not answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    /// Since this process noticed.
    pub(super) since: Instant,
    /// The same by the clock that all processes have.
    since_unix: Duration,
}

impl Away {
    /// Now, by the clock that all processes have.
    pub(super) fn unix_now(&self) -> Duration {
        self.since_unix + self.since.elapsed()
    }
}

/// Leases turns in Redis.
pub(super) struct Lease {
    client: Client,
    script: Script,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    away: Option<Away>,
}

impl Lease {
    /// Leases of `interval` in the Redis at this address, whether it is there or not.
    pub(super) fn at(url: &str, interval: Duration) -> Result<Self, RedisError> {
        let (client, script) = (Client::open(url)?, Script::new(TAKE));
        Ok(Self { client, script, interval, state: Mutex::default() })
    }

    /// Whether Redis did not answer last.
    pub(super) fn is_away(&self) -> bool {
        self.state.lock().away.is_some()
    }

    /// Takes the turn of a key, or says how long to wait before asking again.
    pub(super) async fn take(&self, key: u32) -> Result<Option<Duration>, Away> {
        match self.ask(key).await {
            Ok(millis) => {
                if self.state.lock().away.take().is_some() {
                    tracing::info!("Redis is back: identifies are coordinated again");
                }
                // Nobody waits longer than a turn and a quiet time take, whatever Redis says.
                let left = Duration::from_millis(millis).min(self.interval + self.quiet());
                Ok((millis > 0).then_some(left))
            }
            Err(error) => Err(self.away(&error)),
        }
    }

    /// How long Redis is left alone between two questions while it is away.
    pub(super) fn pause(&self) -> Duration {
        self.interval / 5
    }

    /// How long asking once more may take, with the pause before.
    pub(super) fn patience(&self) -> Duration {
        // To connect, and to be answered.
        self.pause() + 2 * ANSWER_TIMEOUT
    }

    /// How long a Redis that knows nothing gives no turn. Until then, those who went by the clock without having seen that it
    /// is back have identified, and an interval is over.
    fn quiet(&self) -> Duration {
        self.interval + self.patience()
    }

    async fn ask(&self, key: u32) -> Result<u64, RedisError> {
        let known = self.state.lock().connection.clone();
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(ANSWER_TIMEOUT))
                    .set_response_timeout(Some(ANSWER_TIMEOUT));
                let made =
                    self.client.get_multiplexed_async_connection_with_config(&config).await?;
                self.state.lock().connection = Some(made.clone());
                made
            }
        };
        let mut take = redis::cmd("EVALSHA");
        take.arg(self.script.get_hash()).arg(3);
        take.arg(format!("{PREFIX}:{key}")).arg(format!("{PREFIX}:known")).arg(QUIET);
        take.arg(millis(self.interval)).arg(millis(self.quiet()));
        let mut began = false;
        loop {
            let asked = Instant::now();
            let answer = take.query_async(&mut connection).await;
            let no_script = ErrorKind::Server(ServerErrorKind::NoScript);
            if !began && answer.as_ref().is_err_and(|error| error.kind() == no_script) {
                began = true;
                self.begin(&mut connection).await?;
            } else if matches!(answer, Ok(0)) && asked.elapsed() > ANSWER_TIMEOUT {
                // The process was stopped, or had no processor: by now the turn may be another's.
            } else {
                return answer;
            }
        }
    }

    /// A Redis that began anew does not know who went by the clock while it was away, and gives no turn until they are done.
    /// Then it has the script, by which others see that it is not new.
    async fn begin(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(QUIET).arg("1").arg("PX").arg(millis(self.quiet()));
        set.query_async::<()>(connection).await?;
        self.script.load_async(connection).await.map(drop)
    }

    /// Says so once, however often it is asked while it is away.
    fn away(&self, error: &RedisError) -> Away {
        let mut state = self.state.lock();
        state.connection = None;
        *state.away.get_or_insert_with(|| {
            tracing::warn!(
                %error,
                "Redis is away: identifies are paced within this process and by the clock"
            );
            let since_unix = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default();
            Away { since: Instant::now(), since_unix }
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
