//! An independent judge of the pages: Prometheus' own parsers, by promtool (Debian package `prometheus`).

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::json;

use crate::server::{Server, snapshot};

/// Prometheus 2's promtool reads no names in quotes.
const TEXT: [&str; 3] = [
    include_str!("../golden/page-text-underscores.txt"),
    include_str!("../golden/page-text-dots.txt"),
    include_str!("../golden/page-text-values.txt"),
];
const OPENMETRICS: [&str; 6] = [
    include_str!("../golden/page-openmetrics-underscores.txt"),
    include_str!("../golden/page-openmetrics-dots.txt"),
    include_str!("../golden/page-openmetrics-values.txt"),
    include_str!("../golden/page-openmetrics-created-underscores.txt"),
    include_str!("../golden/page-openmetrics-created-dots.txt"),
    include_str!("../golden/page-openmetrics-created-values.txt"),
];
const UTF8: &str = include_str!("../golden/page-text-allow-utf-8.txt");

/// `promtool check metrics`: 0 is fine, 3 is a matter of style, anything else a page that cannot be parsed.
fn check_text(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool cannot be started; install Debian's package prometheus");
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let fine = matches!(output.status.code(), Some(0 | 3));
    assert!(fine, "{}\n{page}", said(&output));
}

/// `promtool tsdb create-blocks-from openmetrics` parses OpenMetrics as a scrape does, and wants timestamps.
fn openmetrics(page: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let stamped: String = page
        .lines()
        .map(|line| match line.split_once(" # {") {
            _ if line.starts_with('#') => format!("{line}\n"),
            Some((sample, exemplar)) => format!("{sample} 1700000000 # {{{exemplar}\n"),
            None => format!("{line} 1700000000\n"),
        })
        .collect();
    let file = folder.path().join("page");
    std::fs::write(&file, stamped).unwrap();
    Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .arg(&file)
        .arg(folder.path().join("blocks"))
        .output()
        .expect("promtool cannot be started; install Debian's package prometheus")
}

fn check_openmetrics(page: &str) {
    let output = openmetrics(page);
    assert!(output.status.success(), "{}\n{page}", said(&output));
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("promtool ended with {}:\n{out}{err}", output.status)
}

#[test]
fn golden_pages_are_prometheus_own_format() {
    TEXT.into_iter().for_each(check_text);
    OPENMETRICS.into_iter().for_each(check_openmetrics);
}

/// The judge must be able to say no.
#[test]
fn a_broken_page_is_found_out() {
    let [page, ..] = OPENMETRICS;
    let unfinished = page.strip_suffix("# EOF\n").unwrap();
    assert!(!openmetrics(unfinished).status.success());
    let unescaped = page.replace("q\\\"b", "q\"b");
    assert!(!openmetrics(&unescaped).status.success());
}

#[tokio::test]
async fn the_pages_of_a_running_manager_are_prometheus_own_format() {
    let server = Server::start().await;
    let mut stream = server.ready(1).await;
    stream.say(snapshot(1, &[(0, 1.0)])).await;
    stream.ack().await;
    // What is on the golden page comes back in as a bot's own metrics.
    let body = json!({ "shardId": "0-2", "metrics": UTF8 }).to_string();
    let client = reqwest::Client::new();
    let post = client.post(format!("{}/shard-metrics", server.http));
    let answer = post.header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    check_text(&server.page().await);
    let scrape = async |accept: String| {
        let request = client.get(format!("{}/metrics", server.http)).header("accept", accept);
        request.send().await.unwrap().text().await.unwrap()
    };
    for escaping in ["underscores", "dots", "values"] {
        check_text(&scrape(format!("text/plain;version=1.0.0;escaping={escaping}")).await);
        let accept = format!("application/openmetrics-text;version=1.0.0;escaping={escaping}");
        check_openmetrics(&scrape(accept).await);
    }
    let utf8 = scrape("text/plain;version=1.0.0;escaping=allow-utf-8".to_owned()).await;
    for line in UTF8.lines().filter(|line| line.starts_with("{\"bot.commands_total\"")) {
        assert!(utf8.lines().any(|l| l == line), "{line}\n{utf8}");
    }
    server.stop().await;
}
