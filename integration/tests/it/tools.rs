//! Where the counterparts are, and how they are run.

use std::{
    iter,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::{Child, Command};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program of the Python environment that `scripts/setup` makes.
pub(crate) fn python(program: &str) -> PathBuf {
    root().join(".venv/bin").join(program)
}

/// Starts a counterpart; it is killed when the handle is dropped.
pub(crate) fn start(command: &mut Command) -> Child {
    let program = command.as_std().get_program().to_owned();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} does not start ({error}); run scripts/setup"))
}

/// An address nothing listens on, for programs that cannot pick one themselves.
pub(crate) fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An address for a server that must come back on it after it was killed: below the range from which the system gives
/// ports to others meanwhile.
pub(crate) fn lasting_addr() -> SocketAddr {
    let addrs = iter::repeat_with(|| ([127, 0, 0, 1], fastrand::u16(10_000..30_000)).into());
    addrs.take(1_000).find(|addr| TcpListener::bind(addr).is_ok()).expect("a free port")
}

/// A number from the environment, for runs that are longer or repeat one.
pub(crate) fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// What a test draws its numbers from; `SEED` repeats one.
pub(crate) fn seed() -> u64 {
    let seed = variable("SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("SEED={seed}");
    seed
}
