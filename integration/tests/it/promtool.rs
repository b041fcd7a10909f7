//! promtool as a judge of the page: no parse error ever; its style lint is compared with a committed list.

use std::collections::BTreeSet;

use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::tools::{self, root};

/// Complaints about names that users know (design section 6), one a line.
const ACCEPTED: &str = include_str!("../../promtool-lint.txt");

/// Fails if promtool finds a parse error, or complains of something that is not on the list.
pub(crate) async fn check(page: &str) {
    let mut command = Command::new("promtool");
    let mut promtool =
        tools::start(command.args(["check", "metrics"]).stderr(std::process::Stdio::piped()));
    let mut input = promtool.stdin.take().unwrap();
    let page = page.to_owned();
    let written = tokio::spawn(async move {
        input.write_all(page.as_bytes()).await.unwrap();
    });
    let output = promtool.wait_with_output().await.unwrap();
    written.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "promtool: {}: {said}", output.status);
    let accepted: BTreeSet<&str> = ACCEPTED.lines().filter(|l| !l.starts_with('#')).collect();
    let new: Vec<_> = said.lines().filter(|l| !l.is_empty() && !accepted.contains(l)).collect();
    let list = root().join("integration/promtool-lint.txt");
    assert!(
        new.is_empty(),
        "promtool complains of {new:#?}; fix it, or add it to {}",
        list.display()
    );
}
