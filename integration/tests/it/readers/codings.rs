//! A compressed page is joined of parts that were kept from other scrapes; it is one stream all the same, which anybody
//! reads, byte for byte the plain page.

use std::process::Stdio;

use fastrand::Rng;
use futures_util::future::join_all;
use prost::Message;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{
    accept::{self, OPENMETRICS, PROTOBUF, TEXT, ask},
    random::Shape,
};
use crate::{
    system::RunningManager,
    tools::{self, python, root, seed},
};

/// A coding, and who undoes it.
struct Coding {
    name: &'static str,
    /// Reads a coded page from its input.
    decoders: fn() -> Vec<Command>,
    /// Fetches a page from this URL, in this format, with this coding, and undoes it.
    clients: fn(&str, &str, &str) -> Vec<Command>,
}

/// Another coding is one more entry.
const CODINGS: [Coding; 2] = [
    Coding {
        name: "gzip",
        decoders: || {
            let mut node = Command::new("node");
            node.arg(root().join("integration/node/gunzip.mjs"));
            vec![python_decoder("gzip"), node]
        },
        clients: |url, accept, coding| {
            let mut node = Command::new("node");
            node.arg(root().join("integration/node/fetch.mjs")).args([url, accept, coding]);
            vec![curl(url, accept, coding), node]
        },
    },
    Coding {
        name: "zstd",
        decoders: || {
            let mut zstd = Command::new("zstd");
            zstd.args(["--decompress", "--stdout"]);
            vec![python_decoder("zstd"), zstd]
        },
        clients: |url, accept, coding| vec![curl(url, accept, coding)],
    },
];

fn python_decoder(coding: &str) -> Command {
    let mut command = Command::new(python("python"));
    command.arg(root().join("integration/python/codings.py")).arg(coding);
    command
}

fn curl(url: &str, accept: &str, coding: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--compressed"])
        .args(["--header", &format!("Accept: {accept}")])
        .args(["--header", &format!("Accept-Encoding: {coding}")])
        .arg(url);
    curl
}

/// What a program writes when `input` is put into it.
async fn output(mut command: Command, input: &[u8]) -> Vec<u8> {
    let mut program = tools::start(command.stderr(Stdio::piped()));
    let mut stdin = program.stdin.take().unwrap();
    let (written, output) =
        tokio::join!(async move { stdin.write_all(input).await }, program.wait_with_output());
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && written.is_ok(), "{command:?}: {}: {said}", output.status);
    output.stdout
}

/// A page without what the manager says of itself, which is another at every scrape.
fn of_shards(format: &str, page: &[u8]) -> Vec<u8> {
    const OWN: &[u8] = b"shardmeter_manager_";
    if format != PROTOBUF {
        let lines = page.split_inclusive(|byte| *byte == b'\n');
        let of_shards = lines.filter(|line| {
            let about = [&b"# HELP "[..], b"# TYPE "].iter().find_map(|a| line.strip_prefix(*a));
            !about.unwrap_or(line).starts_with(OWN)
        });
        return of_shards.collect::<Vec<_>>().concat();
    }
    #[derive(Message)]
    struct Family {
        #[prost(string, tag = "1")]
        name: String,
    }
    let (mut rest, mut of_shards) = (page, Vec::new());
    while !rest.is_empty() {
        let from = rest;
        let family = Family::decode_length_delimited(&mut rest).unwrap();
        if !family.name.as_bytes().starts_with(OWN) {
            of_shards.extend_from_slice(&from[..from.len() - rest.len()]);
        }
    }
    of_shards
}

/// The plain page, and what each reader makes of the compressed one, both without what the manager says of itself.
async fn read_by_all(
    manager: &RunningManager,
    format: &str,
    coding: &Coding,
) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let plain = async || {
        let (_, _, plain) = ask(manager, Some(format), Some("identity")).await;
        of_shards(format, &plain)
    };
    let mut before = plain().await;
    // Series that begin to rest are put elsewhere on the page, though nothing changes: then it is read once more.
    for _ in 0..4 {
        let (_, said, coded) = ask(manager, Some(format), Some(coding.name)).await;
        assert_eq!(said.as_deref(), Some(coding.name));
        assert!(coded.len() < before.len() / 2, "{} of {}", coded.len(), before.len());
        let decoders = (coding.decoders)().into_iter().map(|decoder| (decoder, &*coded));
        let clients = (coding.clients)(&manager.url("/metrics"), format, coding.name);
        let clients = clients.into_iter().map(|client| (client, &[][..]));
        let reading = decoders.chain(clients).map(async |(program, input)| {
            let name = format!("{:?}", program.as_std());
            (name, of_shards(format, &output(program, input).await))
        });
        let read = join_all(reading).await;
        let after = plain().await;
        if before == after {
            return (before, read);
        }
        before = after;
    }
    panic!("the page does not come to rest");
}

/// Series that begin to change or to rest, new ones and gauges that left: between any two rounds chunks are put together
/// anew, compressed again, or kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_page_is_the_plain_one_to_every_reader() {
    let rng = &mut Rng::with_seed(seed());
    let shape = Shape {
        shards: 16,
        instances: 2,
        families: 5,
        series: 300,
        is_odd: false,
        has_parts: false,
        is_legacy: false,
    };
    let (manager, mut reported) = accept::reported(rng, shape).await;
    for round in 0..3 {
        if round > 0 {
            reported.go_on(rng, shape, accept::now());
        }
        for format in [TEXT, OPENMETRICS, PROTOBUF] {
            for coding in &CODINGS {
                let (plain, read) = read_by_all(&manager, format, coding).await;
                assert!(plain.len() > 6 << 16, "{} bytes of {format} are few chunks", plain.len());
                for (program, read) in read {
                    if read != plain {
                        let at = read.iter().zip(&plain).position(|(a, b)| a != b);
                        let (read, plain) = (read.len(), plain.len());
                        panic!(
                            "{program}: {read} bytes, not {plain}, other from {at:?}; {format}, round {round}"
                        );
                    }
                }
            }
        }
    }
    manager.stop().await;
}

/// What curl prints of an answer and, after it, of another on the same connection: had there been a body, it would stand
/// before the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_without_a_body() {
    let shape = Shape {
        shards: 2,
        instances: 2,
        families: 6,
        series: 120,
        is_odd: false,
        has_parts: false,
        is_legacy: false,
    };
    let (manager, _reported) = accept::reported(&mut Rng::with_seed(seed()), shape).await;
    for (coding, codes) in [("identity", false), ("gzip", true), ("zstd", true)] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--head"])
            .args(["--header", &format!("Accept-Encoding: {coding}"), &manager.url("/metrics")])
            .args(["--next", "--silent", "--show-error", "--fail"])
            .args(["--write-out", " %{num_connects} connections", &manager.url("/healthz")]);
        let said = String::from_utf8(output(curl, &[]).await).unwrap();
        let (head, next) = said.split_once("\r\n\r\n").unwrap();
        assert_eq!(next, "ok\n 0 connections");
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(header("content-type").unwrap().starts_with(TEXT), "{head}");
        assert_eq!(header("content-encoding"), codes.then_some(coding), "{head}");
        // The manager's own numbers have a few digits more or less at the next scrape.
        let length: usize = header("content-length").unwrap().parse().unwrap();
        let (_, _, page) = ask(&manager, None, Some(coding)).await;
        assert!(page.len() > 10_000 && length.abs_diff(page.len()) < 1_000, "{head}");
    }
    manager.stop().await;
}
