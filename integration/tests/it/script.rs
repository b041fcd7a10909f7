//! Counterparts that are scripts of ours, of `integration/node` and `integration/python`: they print lines of JSON.

use std::path::Path;

use serde_json::Value;
use shardmeter_process::testing::soon;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::tools::{self, python, root};

pub(crate) struct Script {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Headless Chromium, driven by a script.
    pub(crate) fn browser(script: &str, args: &[&str]) -> Self {
        let folder = root().join("integration/node");
        let installed = folder.join("node_modules/playwright-core").exists();
        assert!(installed, "playwright-core is not installed; run scripts/setup");
        Self::start("node", &folder, script, args)
    }

    /// Python's.
    pub(crate) fn python(script: &str, args: &[&str]) -> Self {
        Self::start(python("python"), &root().join("integration/python"), script, args)
    }

    fn start(
        program: impl AsRef<std::ffi::OsStr>,
        folder: &Path,
        script: &str,
        args: &[&str],
    ) -> Self {
        let mut command = Command::new(program);
        command.current_dir(folder).arg(script).args(args);
        let mut process = tools::start(&mut command);
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Tells the script something.
    pub(crate) async fn say(&mut self, what: &Value) {
        let line = format!("{what}\n");
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    /// What it prints next.
    pub(crate) async fn next(&mut self) -> Value {
        let line = soon("the script says more", self.lines.next_line()).await;
        serde_json::from_str(&line.unwrap().expect("the script runs")).unwrap()
    }

    pub(crate) async fn stop(mut self) {
        drop(self.process.stdin.take());
        soon("the script ends", self.process.wait()).await.unwrap();
    }
}
