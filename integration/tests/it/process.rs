//! The real binaries, as processes that can be killed and stopped.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use shardmeter_process::testing::until;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{
    system::{Discord, REPORT_INTERVAL},
    tools::lasting_addr,
};

/// For a process that was asked to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A binary of this workspace, as cargo built it beside this test; linked into `folder`, so that a build meanwhile does
/// not change what is tested.
///
/// Cargo hands no test the binaries of another package; but it builds those of every package with integration tests
/// before it runs any, and says in a `.d` file beside each what it was made of.
pub(crate) fn binary(name: &str, folder: &Path) -> PathBuf {
    let linked = folder.join(name);
    if linked.exists() {
        return linked;
    }
    let deps = std::env::current_exe().unwrap();
    let binary = deps.ancestors().nth(2).unwrap().join(name);
    let build =
        format!("run `cargo nextest run --workspace`, or `cargo build --bin {name}` before");
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = modified(&binary) else {
        panic!("{} is missing; {build}", binary.display());
    };
    // There is none where cargo built the binary for these tests alone; then it is as new as they are.
    let made_of = fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let (_, sources) = made_of.split_once(": ").unwrap_or_default();
    for source in sources.replace("\\ ", "\0").split_whitespace() {
        let source = source.replace('\0', " ");
        let newer = modified(Path::new(&source)).is_none_or(|modified| modified > built);
        assert!(!newer, "{} is older than {source}; {build}", binary.display());
    }
    fs::hard_link(binary, &linked).unwrap();
    linked
}

/// A folder for logs and data, kept when the test fails.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new(test: &str) -> Self {
        let parent = env!("CARGO_TARGET_TMPDIR");
        fs::create_dir_all(parent).unwrap();
        Self(tempfile::Builder::new().prefix(&format!("{test}-")).tempdir_in(parent).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("logs and data are in {}", self.0.path().display());
        }
    }
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; it logs to a file of that name.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        command.env("RUST_LOG", "info").kill_on_drop(true);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        Self { child: child.unwrap(), log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log has `words`.
    pub(crate) async fn says(&self, words: &str) {
        until(&format!("{} says {words:?}", self.log.display()), || async {
            if self.log().contains(words) { Ok(()) } else { Err(self.log()) }
        })
        .await;
    }

    /// Fails if it has ended, which nobody asked it to.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended by itself, {status}: {}", self.log.display(), self.log());
        }
    }

    /// Sends `STOP`, `CONT` or `TERM`.
    pub(crate) fn signal(&mut self, signal: &str) {
        self.assert_runs();
        let pid = self.child.id().unwrap().to_string();
        let kill = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.unwrap().success(), "kill -s {signal} {pid}");
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.assert_runs();
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and its end.
    pub(crate) async fn terminate(&mut self) {
        self.signal("TERM");
        let ended: ExitStatus = match timeout(END_WITHIN, self.child.wait()).await {
            Ok(ended) => ended.unwrap(),
            Err(_) => panic!("{} does not end at SIGTERM: {}", self.log.display(), self.log()),
        };
        assert!(ended.success(), "{}, {ended}: {}", self.log.display(), self.log());
    }
}

/// A manager that comes back on the same ports and data, however it ended.
pub(crate) struct ManagerProcess {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    arguments: Vec<String>,
    folder: PathBuf,
    starts: u32,
    pub(crate) process: Process,
}

impl ManagerProcess {
    /// Starts it with its data in `folder`, and waits until it listens.
    pub(crate) async fn start(folder: &Path, stale_after: Duration) -> Self {
        Self::start_with(folder, stale_after, &[]).await
    }

    /// The same, with more flags.
    pub(crate) async fn start_with(folder: &Path, stale_after: Duration, flags: &[String]) -> Self {
        let (http, grpc) = (lasting_addr(), lasting_addr());
        let arguments = [
            format!("--http-addr={http}"),
            format!("--grpc-addr={grpc}"),
            format!("--report-interval={}ms", REPORT_INTERVAL.as_millis()),
            format!("--stale-after={}ms", stale_after.as_millis()),
            format!("--data-dir={}", folder.join("data").display()),
        ];
        let arguments = [&arguments, flags].concat();
        let process = Self::spawn(folder, &arguments, 1);
        process.says("manager listens").await;
        let folder = folder.to_owned();
        Self { http, grpc, arguments, folder, starts: 1, process }
    }

    fn spawn(folder: &Path, arguments: &[String], start: u32) -> Process {
        let mut command = Command::new(binary("shardmeter-manager", folder));
        Process::start(command.args(arguments), folder.join(format!("manager-{start}.log")))
    }

    /// Starts it after its end; returns before it listens.
    pub(crate) fn start_again(&mut self) {
        self.starts += 1;
        self.process = Self::spawn(&self.folder, &self.arguments, self.starts);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The page, if it answers.
    pub(crate) async fn page(&self) -> Result<String, String> {
        get(&self.url("/metrics")).await
    }
}

/// What a server answers to GET.
pub(crate) async fn get(url: &str) -> Result<String, String> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
    answer.map_err(|e| e.to_string())?.text().await.map_err(|e| e.to_string())
}

/// A bot process with one shard that comes back as the same shard.
pub(crate) struct ShardProcess {
    id: u32,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    starts: u32,
    pub(crate) process: Process,
}

impl ShardProcess {
    /// Starts shard `id` of `count`; it reports to `manager`.
    pub(crate) fn start(
        folder: &Path,
        discord: &Discord,
        id: u32,
        count: u32,
        manager: SocketAddr,
    ) -> Self {
        Self::start_with(folder, discord, (id, count), manager, Vec::new())
    }

    /// The same, with more in its environment.
    pub(crate) fn start_with(
        folder: &Path,
        discord: &Discord,
        (id, count): (u32, u32),
        manager: SocketAddr,
        more: Vec<(&'static str, String)>,
    ) -> Self {
        let environment = vec![
            ("DISCORD_TOKEN", "token".to_owned()),
            ("DISCORD_GATEWAY_URL", discord.gateway_url.clone()),
            ("DISCORD_API_URL", discord.api_url.clone()),
            ("SHARD_IDS", id.to_string()),
            ("SHARD_COUNT", count.to_string()),
            ("MANAGER_ENDPOINT", format!("http://{manager}")),
            ("SHARDMETER_STATE_DIR", folder.join("sessions").display().to_string()),
        ];
        let environment = [environment, more].concat();
        let process = Self::spawn(folder, &environment, id, 1);
        Self { id, folder: folder.to_owned(), environment, starts: 1, process }
    }

    fn spawn(
        folder: &Path,
        environment: &[(&'static str, String)],
        id: u32,
        start: u32,
    ) -> Process {
        let mut command = Command::new(binary("shardmeter-shard", folder));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Process::start(&mut command, folder.join(format!("shard-{id}-{start}.log")))
    }

    /// Starts it after its end.
    pub(crate) fn start_again(&mut self) {
        self.starts += 1;
        self.process = Self::spawn(&self.folder, &self.environment, self.id, self.starts);
    }
}
