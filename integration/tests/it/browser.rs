//! Headless Chromium, driven by a script of `integration/node`: it prints lines of JSON.

use serde_json::Value;
use shardmeter_process::testing::soon;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::tools::{self, root};

pub(crate) struct Browser {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    pub(crate) fn start(script: &str, args: &[&str]) -> Self {
        let folder = root().join("integration/node");
        let installed = folder.join("node_modules/playwright-core").exists();
        assert!(installed, "playwright-core is not installed; run scripts/setup");
        let mut command = Command::new("node");
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
        let line = soon("the browser says more", self.lines.next_line()).await;
        serde_json::from_str(&line.unwrap().expect("the browser runs")).unwrap()
    }

    pub(crate) async fn stop(mut self) {
        drop(self.process.stdin.take());
        soon("the browser ends", self.process.wait()).await.unwrap();
    }
}
