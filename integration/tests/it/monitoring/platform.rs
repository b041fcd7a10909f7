//! What the platform leans on, each a real one from Debian on a free port: PostgreSQL, and the exporters.

use std::{
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
};

use shardmeter_process::testing::until;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::said;
use crate::tools::{self, free_addr};

/// PostgreSQL refuses root, and `nobody` is everywhere.
const NOBODY: u32 = 65534;

/// A program that listens; killed when dropped.
pub(super) struct Listening {
    pub(super) addr: SocketAddr,
    _process: Child,
    _data: Option<TempDir>,
}

impl Listening {
    /// Starts it, and waits until it listens.
    async fn start(addr: SocketAddr, command: &mut Command, data: Option<TempDir>) -> Self {
        let process = tools::start(command.stderr(Stdio::null()));
        until("it listens", || async {
            let program = command.as_std().get_program().display().to_string();
            let connected = TcpStream::connect(addr).await;
            connected.map(|_| ()).map_err(|error| format!("{program}: {error}"))
        })
        .await;
        Self { addr, _process: process, _data: data }
    }

    /// A PostgreSQL server of its own, which trusts everybody, as its owner `shardmeter`.
    pub(super) async fn postgres() -> Self {
        let data = tempfile::tempdir().unwrap();
        let root = std::fs::metadata("/proc/self").unwrap();
        let root = std::os::unix::fs::MetadataExt::uid(&root) == 0;
        if root {
            chown(data.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let folder = data.path().join("data");
        let of_postgres = |program: &str| {
            let mut command = Command::new(newest_postgres().join(program));
            command.current_dir(data.path()).arg("-D").arg(&folder);
            if root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command
        };
        said(of_postgres("initdb").args(["--auth=trust", "--username=shardmeter", "--no-sync"]))
            .await;
        let addr = free_addr();
        let mut server = of_postgres("postgres");
        server.args(["-p", &addr.port().to_string(), "-c", "unix_socket_directories="]);
        Self::start(addr, &mut server, Some(data)).await
    }

    pub(super) async fn node_exporter() -> Self {
        Self::listens_at("prometheus-node-exporter", "--web.listen-address", |_| {}).await
    }

    pub(super) async fn redis_exporter(redis: &str) -> Self {
        Self::listens_at("prometheus-redis-exporter", "-web.listen-address", |command| {
            command.arg(format!("-redis.addr={redis}"));
        })
        .await
    }

    pub(super) async fn postgres_exporter(postgres: SocketAddr) -> Self {
        let source = format!("postgresql://shardmeter@{postgres}/postgres?sslmode=disable");
        Self::listens_at("prometheus-postgres-exporter", "--web.listen-address", |command| {
            command.env("DATA_SOURCE_NAME", source);
        })
        .await
    }

    /// An Alertmanager on its own, with this configuration.
    pub(super) async fn alertmanager(config: &Path) -> Self {
        let data = tempfile::tempdir().unwrap();
        let storage = format!("--storage.path={}", data.path().display());
        let mut started =
            Self::listens_at("prometheus-alertmanager", "--web.listen-address", |command| {
                command.arg(format!("--config.file={}", config.display())).arg(storage);
                command.arg("--cluster.listen-address=");
            })
            .await;
        started._data = Some(data);
        started
    }

    async fn listens_at(program: &str, flag: &str, more: impl FnOnce(&mut Command)) -> Self {
        let addr = free_addr();
        let mut command = Command::new(program);
        more(command.arg(format!("{flag}={addr}")));
        Self::start(addr, &mut command, None).await
    }
}

/// Where Debian puts the programs of PostgreSQL, which are not in the path.
fn newest_postgres() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("no PostgreSQL; run scripts/setup");
    let paths = versions.map(|version| version.unwrap().path().join("bin"));
    paths.max().expect("no PostgreSQL; run scripts/setup")
}
