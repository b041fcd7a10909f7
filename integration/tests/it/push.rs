//! The push functions of real client libraries, unchanged: the manager's page is what they pushed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use shardmeter_access::testing::{Authority, Pair};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    process::{ManagerProcess, Scratch},
    promtool,
    scrape::{self, Samples},
    tools::{self, python, root},
};

/// Long, so that no gauge leaves the page while a test waits for others.
const STALE_AFTER: Duration = Duration::from_secs(600);

/// A line of the programs that push.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Step {
        step: String,
        /// What the grouping key adds to each series, but for the shard's id.
        labels: BTreeMap<String, String>,
        /// What was pushed and not replaced since.
        said: Vec<String>,
        /// The page after it.
        page: String,
    },
    Refused {
        refused: String,
    },
}

async fn run(command: &mut Command) -> Vec<Said> {
    let output = tools::start(command.stderr(Stdio::inherit())).wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What of a page was reported.
fn reported(page: &str) -> String {
    let is_own = |name: &str| name.starts_with("shard_") || name.starts_with("shardmeter_manager_");
    let name =
        |line: &str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").to_owned();
    let lines = page.lines().filter(|line| !is_own(&name(line)));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Checks every step: what is in force, and what was counted before, is on the page with the group's labels.
async fn check(lines: Vec<Said>) -> Vec<String> {
    let (mut counted, mut refusals) = (Samples::new(), Vec::new());
    for line in lines {
        let (step, labels, said, page) = match line {
            Said::Step { step, labels, said, page } => (step, labels, said, page),
            Said::Refused { refused } => {
                refusals.push(refused);
                continue;
            }
        };
        promtool::check(&page).await;
        let mut expected = counted;
        for ((name, mut of), value) in said.iter().flat_map(|text| scrape::parse(text)) {
            if name.ends_with("_created") {
                continue; // passed over: the manager knows it better
            }
            // A group's labels take the place of the body's own.
            of.remove("job");
            of.extend(labels.clone());
            of.insert("shard_id".to_owned(), "3".to_owned());
            expected.insert((name, of), value);
        }
        let page = reported(&page);
        let shown = scrape::parse(&page);
        assert_eq!(shown, expected, "{step}");
        counted = scrape::counts(&page);
        assert!(!counted.is_empty(), "{step}");
    }
    refusals
}

async fn manager(folder: &Path) -> ManagerProcess {
    ManagerProcess::start(folder, STALE_AFTER).await
}

const TOKEN: &str = "the-ingest-token";

/// A manager that asks who pushes, under TLS, its URL, and the file with its authority.
async fn careful_manager(folder: &Path) -> (ManagerProcess, String, PathBuf) {
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = Authority::new();
    let Pair { cert, key } = authority.server();
    let flags = [
        format!("--tls-cert={}", put("cert.pem", &cert).display()),
        format!("--tls-key={}", put("key.pem", &key).display()),
        format!("--ingest-token-file={}", put("token", TOKEN).display()),
    ];
    let manager = ManagerProcess::start_with(folder, STALE_AFTER, &flags).await;
    let url = manager.url("").replace("http://", "https://");
    (manager, url, put("ca.pem", &authority.pem()))
}

#[tokio::test]
async fn the_python_clients_functions_push() {
    let scratch = Scratch::new("python-push");
    let manager = manager(scratch.path()).await;
    let mut command = Command::new(python("python"));
    command.arg(root().join("integration/python/push.py")).arg(manager.url(""));
    let lines = run(&mut command).await;
    assert_eq!(lines.len(), 10);
    assert!(check(lines).await.is_empty());
}

#[tokio::test]
async fn the_python_clients_functions_push_under_tls_with_a_token() {
    let scratch = Scratch::new("python-push-tls");
    let (_manager, url, authority) = careful_manager(scratch.path()).await;
    let push = |token: &str| {
        let mut command = Command::new(python("python"));
        command.arg(root().join("integration/python/push.py")).arg(&url);
        command.env("SSL_CERT_FILE", &authority).env("PUSH_TOKEN", token);
        command
    };
    let lines = run(&mut push(TOKEN)).await;
    assert_eq!(lines.len(), 10);
    assert!(check(lines).await.is_empty());
    for token in ["", "another"] {
        let output = tools::start(push(token).stderr(Stdio::piped())).wait_with_output().await;
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("HTTP Error 401"), "{said}");
    }
}

#[tokio::test]
async fn prom_clients_pushgateway_pushes_under_tls_with_a_token() {
    let scratch = Scratch::new("node-push-tls");
    let (_manager, url, authority) = careful_manager(scratch.path()).await;
    let push = |token: &str| {
        let mut command = Command::new("node");
        command.current_dir(root().join("integration/node")).args(["push.mjs", &url]);
        command.env("NODE_EXTRA_CA_CERTS", &authority).env("PUSH_TOKEN", token);
        command
    };
    let lines = run(&mut push(TOKEN)).await;
    assert_eq!(lines.len(), 6);
    check(lines).await;
    for token in ["", "another"] {
        let output = tools::start(push(token).stderr(Stdio::piped())).wait_with_output().await;
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("status 401"), "{said}");
    }
}

#[tokio::test]
async fn prom_clients_pushgateway_pushes() {
    let scratch = Scratch::new("node-push");
    let manager = manager(scratch.path()).await;
    let mut command = Command::new("node");
    command.current_dir(root().join("integration/node")).args(["push.mjs", &manager.url("")]);
    let lines = run(&mut command).await;
    assert_eq!(lines.len(), 6);
    let refusals = check(lines).await;
    assert!(refusals[0].contains("push failed with status 400"), "{refusals:?}");
    assert!(refusals[0].contains("has no shard_id"), "{refusals:?}");
}

/// As Pushgateway's README has it.
#[tokio::test]
async fn curl_pushes() {
    let scratch = Scratch::new("curl-push");
    let manager = manager(scratch.path()).await;
    let group = manager.url("/metrics/job/some_job/shard_id/3/instance/some_instance");
    let curl = async |arguments: &[&str], body: &str| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--write-out", " %{http_code}"]).args(arguments);
        let mut curl = tools::start(&mut command);
        curl.stdin.take().unwrap().write_all(body.as_bytes()).await.unwrap();
        String::from_utf8(curl.wait_with_output().await.unwrap().stdout).unwrap()
    };
    let body = "# TYPE some_metric counter\nsome_metric{label=\"val1\"} 42\n# TYPE another_metric gauge\n\
                # HELP another_metric Just an example.\nanother_metric 2398.283\n";
    let answer = curl(&["--data-binary", "@-", &group], body).await;
    assert!(answer.ends_with(" 200"), "{answer}");
    let group_labels = "exported_instance=\"some_instance\",exported_job=\"some_job\"";
    let page = manager.page().await.unwrap();
    let lines = [
        format!("some_metric{{shard_id=\"3\",{group_labels},label=\"val1\"}} 42\n"),
        format!("another_metric{{shard_id=\"3\",{group_labels}}} 2398.283\n"),
    ];
    assert!(lines.iter().all(|line| page.contains(line)), "{page}");

    let shard = manager.url("/metrics?shard_id=4");
    let answer = curl(&["--data-binary", "@-", &shard], "some_metric 3.14\n").await;
    assert!(answer.ends_with(" 200"), "{answer}");
    assert!(answer.contains("type_conflict"), "some_metric is a counter: {answer}");

    let answer = curl(&["-X", "DELETE", &group], "").await;
    assert_eq!(answer, "{\"ended\":[3]} 202");
    let page = manager.page().await.unwrap();
    assert!(page.contains(&lines[0]) && !page.contains("another_metric"), "{page}");
}
