//! A real `redis-server` for tests, which can be killed, frozen and started again on the same port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
};

use redis::aio::MultiplexedConnection;
use shardmeter_process::testing::until;
use tempfile::TempDir;

/// A `redis-server` on a free port that keeps nothing on disk; killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    process: Option<Child>,
    dir: TempDir,
}

impl RedisServer {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start() -> Self {
        let mut server =
            Self { port: lasting_port(), process: None, dir: tempfile::tempdir().unwrap() };
        server.start_again().await;
        server
    }

    /// Where it is, as `REDIS_URL` says it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// kill -9: what it knew is gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("redis-server runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Starts it after it was killed, empty, and waits until it answers.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "redis-server runs");
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (Debian: apt-get install redis-server)");
        self.process = Some(process);
        self.connection().await;
    }

    /// Stops it without closing anything, as a machine does that lost power; `CONT` lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("redis-server runs").id().to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.unwrap().success(), "kill -s {signal} {pid}");
    }

    /// A connection of the test's own.
    ///
    /// # Panics
    /// If there is none in time.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        until("redis-server", || client.get_multiplexed_async_connection()).await
    }

    /// Asks it something.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let (name, arguments) = command.split_first().expect("a command");
        let mut connection = self.connection().await;
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// A port to come back on: below the range from which the system gives ports to others meanwhile.
fn lasting_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(10_000..30_000));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(1_000).find(is_free).expect("a free port")
}
