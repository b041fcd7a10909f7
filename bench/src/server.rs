//! A measured server: a process on free ports of the loopback interface, killed by its id when dropped.

use std::{ffi::OsStr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::Process;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::clocks::CpuClock;

/// How long a server may take to listen, with a page of a million series to read back.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take to end when told.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// What the joiner is.
const JOINER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/joiner.js");

/// A running server.
pub(crate) struct Server {
    child: Child,
    pid: Pid,
    /// Base URL.
    pub(crate) http: String,
    /// Address of its gRPC port, if it has one.
    pub(crate) grpc: Option<String>,
    pub(crate) cpu: CpuClock,
    /// Resident bytes when it had nothing to keep yet.
    pub(crate) rss_at_start: u64,
}

/// Shards send as fast as they are answered here.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manager.toml");

impl Server {
    pub(crate) async fn floor() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.arg("--serve-floor")).await
    }

    pub(crate) async fn manager(binary: &Path, data_dir: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"]);
        // Streams rest while the other servers have their turn.
        command.args(["--stale-after", "3600s"]);
        // A variable, which builds that know no configuration file pass over.
        command.env("SHARDMETER_CONFIG", CONFIG);
        if let Some(dir) = data_dir {
            command.arg("--data-dir").arg(dir);
        }
        Self::start(&mut command).await
    }

    /// With its database in `folder`.
    pub(crate) async fn api(
        binary: &Path,
        folder: &Path,
        redis_url: Option<&str>,
        manager: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.env("API_ADDR", "127.0.0.1:0");
        command.env("DATABASE_URL", format!("sqlite://{}", folder.join("api.db").display()));
        // The clients are one address.
        command.env("API_REQUESTS_PER_SECOND", u32::MAX.to_string());
        // Empty counts as not set.
        command.env("REDIS_URL", redis_url.unwrap_or_default());
        command.env("MANAGER_ENDPOINT", manager.unwrap_or("http://127.0.0.1:1"));
        Self::start(&mut command).await
    }

    pub(crate) async fn joiner() -> anyhow::Result<Self> {
        Self::start(Command::new("node").arg(JOINER)).await
    }

    /// `kept`: a file that it reads at start, and writes at its end.
    pub(crate) async fn pushgateway(kept: Option<&Path>, check: bool) -> anyhow::Result<Self> {
        let mut command = Command::new("prometheus-pushgateway");
        command.args(["--web.listen-address=127.0.0.1:0", "--persistence.interval=24h"]);
        let kept = kept.map_or(OsStr::new(""), Path::as_os_str);
        command.arg("--persistence.file").arg(kept);
        if !check {
            command.arg("--push.disable-consistency-check");
        }
        Self::start(&mut command).await
    }

    async fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.as_std().get_program().to_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env("LOG_FORMAT", "text").kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name:?}"))?;
        let pid = child.id().context("it ended at once")?;
        let pid = Pid::from_raw(i32::try_from(pid)?);
        let log = child.stderr.take().context("it has no log")?;
        let mut log = BufReader::new(log).lines();
        let listening = timeout(LISTENS_WITHIN, listening(&mut log)).await;
        let (http, grpc) = listening
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| format!("{name:?} does not say where it listens"))?;
        // Somebody must read on, or a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let cpu = CpuClock::of(pid)?;
        let http = format!("http://{http}");
        let mut server = Self { child, pid, http, grpc, cpu, rss_at_start: 0 };
        server.rss_at_start = server.rss()?;
        Ok(server)
    }

    /// Resident bytes.
    pub(crate) fn rss(&self) -> anyhow::Result<u64> {
        let status = Process::new(self.pid.as_raw())?.status()?;
        Ok(status.vmrss.context("no VmRSS")? * 1024)
    }

    /// Lets it end by itself.
    pub(crate) async fn terminate(mut self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGTERM)?;
        timeout(ENDS_WITHIN, self.child.wait()).await.context("it does not end")??;
        Ok(())
    }
}

/// Reads the log to the line that says the addresses: HTTP's, and gRPC's if there is one.
async fn listening(
    log: &mut Lines<BufReader<ChildStderr>>,
) -> anyhow::Result<(String, Option<String>)> {
    let mut last = String::new();
    while let Some(line) = log.next_line().await? {
        // The Pushgateway says only `address=`, the api `addr=`.
        let names = ["http_addr=", " address=", " addr="];
        if let Some(http) = names.iter().find_map(|name| field(&line, name)) {
            return Ok((http, field(&line, "grpc_addr=")));
        }
        last = line;
    }
    bail!("it ended: {last}");
}

fn field(line: &str, name: &str) -> Option<String> {
    let value = line.split_once(name)?.1.split_whitespace().next()?;
    Some(value.to_owned())
}
