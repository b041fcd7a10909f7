//! The binary as an operator meets it: exit codes, what it says, signals.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use shardmeter_process::testing::until;

fn manager(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmeter-manager"));
    command.args(["--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied()).env_remove("RUST_LOG").stderr(Stdio::piped());
    command
}

/// Runs it to its end: exit code and log.
pub(crate) fn ends(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = manager(args, env).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A running manager. Killed when dropped.
pub(crate) struct Running {
    process: Child,
    /// Where its HTTP port is.
    pub(crate) http: String,
    /// Where its gRPC port is.
    pub(crate) grpc: String,
    log: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(manager(args, env))
    }

    /// Starts a command that becomes a manager, and waits until it listens.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens =
            lines.find_map(|line| Some(line.unwrap()).filter(|l| l.contains("http_addr=")));
        let listens = listens.expect("it ended without listening");
        let addr = |name: &str| {
            let (_, addr) = listens.split_once(name).unwrap();
            format!("http://{}", addr.split_whitespace().next().unwrap())
        };
        let log = Arc::<Mutex<String>>::default();
        let kept = Arc::clone(&log);
        // Somebody must read on, or a full pipe would stop it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        Self { process, http: addr("http_addr="), grpc: addr("grpc_addr="), log }
    }

    /// What it logged since it listens, once that has these words.
    pub(crate) async fn log_until(&self, words: &str) -> String {
        until(words, async || {
            let log = self.log.lock().unwrap().clone();
            if log.contains(words) { Ok(log) } else { Err(log) }
        })
        .await
    }

    pub(crate) fn pid(&self) -> String {
        self.process.id().to_string()
    }

    fn terminate(mut self) -> Option<i32> {
        assert!(Command::new("kill").args(["-TERM", &self.pid()]).status().unwrap().success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_configuration_that_cannot_work_exits_with_2() {
    for (args, reason) in [
        (["--report-interval", "1ms"], "is not from 100ms to 600s"),
        (["--report-interval", "18446744073709551615s"], "is not from 100ms to 600s"),
        (["--stale-after", "29s"], "three times --report-interval"),
        (["--report-interval", "often"], "invalid value 'often'"),
        (["--no-such", "flag"], "unexpected argument '--no-such'"),
    ] {
        let (code, log) = ends(&args, &[]);
        assert_eq!(code, Some(2), "{args:?}: {log}");
        assert!(log.contains(reason), "{args:?}: {log}");
    }
}

/// Traces are OpenTelemetry's, which would take what it does not know for something else.
#[test]
fn traces_that_cannot_be_sent_exit_with_2_and_a_reason() {
    let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    for (environment, reason) in [
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")][..],
            "collector:4317: it is not http",
        ),
        (&[there, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "only grpc is spoken"),
        (&[there, ("OTEL_TRACES_SAMPLER", "some")], "OTEL_TRACES_SAMPLER is some"),
        (&[there, ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")], "OTEL_TRACES_SAMPLER_ARG"),
        (
            &[there, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "10%")],
            "a number from 0 to 1",
        ),
    ] {
        let (code, log) = ends(&[], environment);
        assert_eq!(code, Some(2), "{environment:?}: {log}");
        assert!(log.contains(reason), "{environment:?}: {log}");
    }
    let sampled = [
        there,
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
    ];
    assert_eq!(Running::start(&[], &sampled).terminate(), Some(0));
}

#[test]
fn a_port_in_use_exits_with_1_and_says_which() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmeter-manager"));
    let output = command.args(["--http-addr", &addr]).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("cannot listen on {addr} for HTTP")), "{log}");
}

#[test]
fn sigterm_ends_it_cleanly() {
    assert_eq!(Running::start(&[], &[]).terminate(), Some(0));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let empty = [("SHARDMETER_REPORT_INTERVAL", ""), ("SHARDMETER_FLEET", "")];
    assert_eq!(Running::start(&[], &empty).terminate(), Some(0));
    let (code, _) = ends(&[], &[("SHARDMETER_REPORT_INTERVAL", "x")]);
    assert_eq!(code, Some(2), "and one that is not, does not");
}

/// Whoever read its log is gone.
#[test]
fn a_closed_standard_error_keeps_it_from_nothing() {
    let mut process = manager(&[], &[]).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("http_addr=")));
    drop(log);
    let (http, grpc, log) = Default::default();
    let running = Running { process, http, grpc, log };
    assert_eq!(running.terminate(), Some(0));
}
