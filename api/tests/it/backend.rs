//! What the api runs on: a PostgreSQL server of the test's own, or an SQLite file.

use std::{
    fs::Permissions,
    iter,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use shardmeter_process::{
    Secret,
    testing::{soon, until},
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// PostgreSQL refuses root; `nobody` is everywhere.
const NOBODY: u32 = 65534;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Postgres,
    Sqlite,
}

/// Makes two tests of each function: one for each backend.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::backend::Backend::Postgres).await;
            })+
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::backend::Backend::Sqlite).await;
            })+
        }
    };
}
pub(crate) use on_both;

/// A database that ends with the test.
pub(crate) enum Database {
    Postgres(Postgres),
    Sqlite(TempDir),
}

impl Database {
    pub(crate) async fn start(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => Self::Postgres(Postgres::start().await),
            Backend::Sqlite => Self::Sqlite(tempfile::tempdir().unwrap()),
        }
    }

    pub(crate) fn url(&self) -> Secret {
        Secret::from(match self {
            Self::Postgres(postgres) => postgres.url(),
            Self::Sqlite(folder) => format!("sqlite://{}/api.db", folder.path().display()),
        })
    }
}

/// A PostgreSQL server that can be stopped and started.
pub(crate) struct Postgres {
    folder: TempDir,
    port: u16,
    running: Option<Child>,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let mut postgres = Self::prepare().await;
        postgres.resume().await;
        postgres
    }

    /// A server that is not started yet.
    pub(crate) async fn prepare() -> Self {
        let folder = private_folder();
        copy(&template().await, &folder.path().join("data")).await;
        Self { folder, port: lasting_port(), running: None }
    }

    pub(crate) fn url(&self) -> String {
        Self::url_at(self.port)
    }

    /// Its URL, were it there.
    pub(crate) fn url_at(port: u16) -> String {
        format!("postgres://shardmeter@127.0.0.1:{port}/postgres")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Has it take TLS, and nothing else. Returns who signed its certificate.
    pub(crate) fn require_tls(&self) -> PathBuf {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let data = self.folder.path().join("data");
        let file = |name: &str, content: &str| {
            let path = data.join(name);
            std::fs::write(&path, content).unwrap();
            // PostgreSQL uses no key that others may read.
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            if Uid::effective().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            path
        };
        file("server.key", &signing_key.serialize_pem());
        file("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
        file("postgresql.auto.conf", "ssl = on\n");
        file("server.crt", &cert.pem())
    }

    /// Starts it on the port it always had.
    pub(crate) async fn resume(&mut self) {
        let mut server = program("postgres", self.folder.path());
        server.arg("-D").arg(self.folder.path().join("data")).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "logging_collector=off",
        ] {
            server.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        server.stderr(log).stdout(Stdio::null());
        let mut child = server.spawn().unwrap();
        until("postgres", async || {
            assert_eq!(child.try_wait().unwrap(), None, "postgres: {}", self.log());
            TcpStream::connect(self.address()).await.map_err(|_| self.log())
        })
        .await;
        self.running = Some(child);
    }

    /// Stops it at once, as a crash would.
    pub(crate) async fn stop(&mut self) {
        let mut child = self.running.take().expect("not running");
        signal(&child, Signal::SIGQUIT);
        soon("postgres stops", child.wait()).await.unwrap();
    }

    /// Stops all its processes where they are; they keep their connections.
    pub(crate) fn hang(&self) -> Vec<Pid> {
        let postmaster =
            Pid::from_raw(self.running.as_ref().unwrap().id().unwrap().try_into().unwrap());
        // First the one that makes others.
        kill(postmaster, Signal::SIGSTOP).unwrap();
        let children =
            std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.unwrap();
        let children = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
        let all: Vec<_> = [postmaster].into_iter().chain(children).collect();
        // One may have ended since.
        for pid in &all {
            let _ended = kill(*pid, Signal::SIGSTOP);
        }
        all
    }

    /// Lets them go on.
    pub(crate) fn go_on(&self, hung: &[Pid]) {
        for pid in hung {
            let _ended = kill(*pid, Signal::SIGCONT);
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// A folder that PostgreSQL may use.
fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if Uid::effective().is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

/// The files of a new server. To make them takes seconds, so they are made once for all tests.
async fn template() -> PathBuf {
    let bin = programs();
    let version = bin.iter().rev().nth(1).unwrap().to_string_lossy();
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{version}"));
    if made.exists() {
        return made;
    }
    let folder = private_folder();
    let data = folder.path().join("data");
    let mut initdb = program("initdb", folder.path());
    initdb.args(["--auth=trust", "--username=shardmeter", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--no-sync", "--no-instructions", "--pgdata"]).arg(&data);
    let initialized = initdb.output().await.unwrap();
    let said = String::from_utf8_lossy(&initialized.stderr);
    assert!(initialized.status.success(), "initdb: {said}");
    // Tests may make it at the same time: one's is used.
    let mine = made.with_extension(std::process::id().to_string());
    copy(&data, &mine).await;
    if std::fs::rename(&mine, &made).is_err() {
        std::fs::remove_dir_all(&mine).unwrap();
    }
    made
}

async fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().await.unwrap();
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("it ended").try_into().unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// The newest PostgreSQL's programs, which Debian keeps out of the path.
fn programs() -> PathBuf {
    let missing = "no PostgreSQL: scripts/setup installs it";
    let installed = std::fs::read_dir("/usr/lib/postgresql").expect(missing);
    let folders = installed.map(|version| version.unwrap().path().join("bin"));
    folders.filter(|bin| bin.join("initdb").exists()).max().expect(missing)
}

fn program(name: &str, folder: &Path) -> Command {
    let mut program = Command::new(programs().join(name));
    if Uid::effective().is_root() {
        program.uid(NOBODY).gid(NOBODY);
    }
    program.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    program
}

/// A port for a server that comes back on it: below the range from which the system gives ports to others meanwhile.
fn lasting_port() -> u16 {
    let mut ports = iter::repeat_with(|| fastrand::u16(10_000..30_000)).take(1_000);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}
