//! `GET /metrics`: formats, parts, HEAD.

use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::{StatusCode, header};
use serde_json::Value;
use shardmeter_manager::Config;
use shardmeter_proto::v1::{self, MetricType, report_request::Message as Said};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::server::{Server, Stream, define, snapshot};

#[tokio::test]
async fn a_scrape_gets_what_it_asks_for() {
    let server = Server::start().await;
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                        text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                        application/openmetrics-text;version=0.0.1;q=0.5,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let text_with_dots = "text/plain; version=1.0.0; charset=utf-8; escaping=dots";
    let client = reqwest::Client::new();
    for (accept, content_type) in [
        (None, text),
        (Some("*/*"), text),
        (Some("text/html"), text),
        (Some("\u{e9}"), text),
        (Some("application/openmetrics-text"), openmetrics),
        (Some(prometheus_3), &format!("{openmetrics}; escaping=allow-utf-8")),
        (Some("text/plain;version=1.0.0;escaping=dots"), text_with_dots),
        (Some(prometheus_2), openmetrics),
    ] {
        let mut request = client.get(format!("{}/metrics", server.http));
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type, "{accept:?}");
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING));
        let page = answer.text().await.unwrap();
        assert_eq!(page.ends_with("# EOF\n"), content_type.starts_with("application/openmetrics"));
        let dots = content_type.ends_with("dots");
        let spelled = |name: &str| if dots { name.replace('_', "__") } else { name.to_owned() };
        let scrapes = spelled("shardmeter_manager_scrapes_total");
        assert!(page.contains(&format!("{scrapes}{{format=\"text\"}}")), "{page}");
        assert!(page.contains(&spelled("shardmeter_manager_process_start_time_seconds")));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_scrape_is_compressed_if_that_is_accepted() {
    let server = Server::start().await;
    let url = format!("{}/metrics", server.http);
    let plain = reqwest::Client::new();
    for accepts in ["gzip", "deflate, gzip;q=1.0", "*"] {
        let request = plain.get(&url).header(header::ACCEPT_ENCODING, accepts);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip", "{accepts}");
        let bytes = answer.bytes().await.unwrap();
        let mut page = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut page).unwrap();
        assert!(page.starts_with("# HELP ") && page.ends_with('\n'), "{page}");
    }
    for accepts in ["identity", "br", "gzip;q=0"] {
        let request = plain.get(&url).header(header::ACCEPT_ENCODING, accepts);
        let answer = request.send().await.unwrap();
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING), "{accepts}");
    }
    server.stop().await;
}

/// A manager of which shard 0 reports `c_total` and, beyond the legacy rule, `bot.commands_total`.
async fn started(config: Config) -> (Server, Stream) {
    let server = Server::start_with(config).await;
    let mut stream = server.ready(1).await;
    let Said::Definitions(mut beyond) = define("bot.commands_total", MetricType::Counter, 1) else {
        panic!()
    };
    let label = v1::Label { name: "guild.name".into(), value: "q\"".into() };
    beyond.families[0].series[0].labels = vec![label];
    stream.say(Said::Definitions(beyond)).await;
    stream.say(snapshot(1, &[(0, 1.0), (1, 2.0)])).await;
    assert_eq!(stream.ack().await.rejected, []);
    (server, stream)
}

async fn get(server: &Server, query: &str, accept: &str) -> (StatusCode, String) {
    let request = reqwest::Client::new().get(format!("{}/metrics{query}", server.http));
    let answer = request.header(header::ACCEPT, accept).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn names_are_escaped_as_asked() {
    let (server, _stream) = started(Config::default()).await;
    for (escaping, line) in [
        ("allow-utf-8", "{\"bot.commands_total\",shard_id=\"0\",\"guild.name\"=\"q\\\"\"} 2"),
        ("underscores", "bot_commands_total{shard_id=\"0\",guild_name=\"q\\\"\"} 2"),
        ("dots", "bot_dot_commands__total{shard__id=\"0\",guild_dot_name=\"q\\\"\"} 2"),
        ("values", "U__bot_2e_commands__total{shard_id=\"0\",U__guild_2e_name=\"q\\\"\"} 2"),
    ] {
        for media_type in ["text/plain", "application/openmetrics-text"] {
            let accept = format!("{media_type};version=1.0.0;escaping={escaping}");
            let (_, page) = get(&server, "", &accept).await;
            assert!(page.lines().any(|l| l == line), "{accept}\n{page}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_part_of_the_page_can_be_asked_for() {
    let (server, _stream) = started(Config::default()).await;
    let bot = "# TYPE bot_commands_total counter\n\
               bot_commands_total{shard_id=\"0\",guild_name=\"q\\\"\"} 2\n";
    let c = "# TYPE c_total counter\nc_total{shard_id=\"0\"} 1\n";
    for (query, page) in [
        ("?name[]=c_total", c.to_owned()),
        ("?name%5B%5D=c_total&name[]=bot.commands_total", format!("{bot}{c}")),
        ("?name[]=bot_commands_total&shard_id=0&shard_id=1", bot.to_owned()),
        ("?name[]=c_total&shard_id=1", String::new()),
        ("?name[]=nothing", String::new()),
        ("?name[]=", String::new()),
        ("?shard_id=7", String::new()),
    ] {
        assert_eq!(get(&server, query, "*/*").await, (StatusCode::OK, page), "{query}");
    }
    let (_, page) = get(&server, "?name[]=nothing", "application/openmetrics-text").await;
    assert_eq!(page, "# EOF\n");
    // Everything about a shard, and nothing of the manager itself.
    let (_, page) = get(&server, "?shard_id=0", "*/*").await;
    assert!(
        page.contains(c) && page.contains(bot) && page.contains("shard_up{shard_id=\"0\"} 1\n")
    );
    assert!(!page.contains("shardmeter_manager_") && !page.contains("shard_id=\"1\""), "{page}");
    let (_, whole) = get(&server, "?", "*/*").await;
    assert!(whole.contains("shardmeter_manager_streams 1"), "{whole}");

    let plain = reqwest::Client::new();
    let request = plain.get(format!("{}/metrics?name[]=c_total", server.http));
    let answer = request.header(header::ACCEPT_ENCODING, "gzip").send().await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(answer.bytes().await.unwrap()[..2], [0x1f, 0x8b]);
    let request = reqwest::get(format!("{}/metrics?name[]=c_total", server.http));
    assert_eq!(request.await.unwrap().text().await.unwrap(), c);
    server.stop().await;
}

#[tokio::test]
async fn a_part_that_makes_no_sense_is_refused_by_name() {
    let (server, _stream) = started(Config::default()).await;
    for (query, named) in [
        ("?shard_id=x", "shard_id=\"x\""),
        ("?shard_id=", "shard_id=\"\""),
        ("?shard_id=-1", "shard_id=\"-1\""),
        ("?shard_id=0-3", "shard_id=\"0-3\""),
        ("?shard_id=4294967296", "shard_id=\"4294967296\""),
        ("?name=c_total", "\"name\""),
        ("?name[]=c_total&shard=3", "\"shard\""),
        ("?%00", "\"\\0\""),
    ] {
        let (status, answer) = get(&server, query, "*/*").await;
        assert_eq!(status, 400, "{query}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(named) && error.contains("shard_id"), "{query}: {error}");
    }
    server.stop().await;
}

#[tokio::test]
async fn created_samples_are_there_if_configured() {
    for openmetrics_created in [false, true] {
        let config = Config { openmetrics_created, ..Config::default() };
        let (server, _stream) = started(config).await;
        let created = "c_created{shard_id=\"0\"} 1700000000.5";
        let (_, page) = get(&server, "", "application/openmetrics-text").await;
        assert_eq!(page.lines().any(|line| line == created), openmetrics_created, "{page}");
        let (_, page) = get(&server, "?name[]=c_created", "application/openmetrics-text").await;
        assert_eq!(page.lines().any(|line| line == created), openmetrics_created, "{page}");
        assert!(!server.page().await.contains("_created"));
        server.stop().await;
    }
}

/// Status and headers of a request, and whatever comes after them.
async fn raw(server: &Server, method: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut socket = TcpStream::connect(server.http_addr).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    // The one thing that depends on when it is asked.
    (head.lines().filter(|line| !line.starts_with("date: ")).collect(), body)
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (server, _stream) = started(Config::default()).await;
    // What cannot change between two requests.
    let part = "/metrics?name[]=c_total&name[]=bot.commands_total";
    for headers in [
        "",
        "accept-encoding: gzip\r\n",
        "accept: application/openmetrics-text\r\n",
        "accept: text/plain;version=1.0.0;escaping=allow-utf-8\r\n",
    ] {
        let (head, body) = raw(&server, "HEAD", part, headers).await;
        let (expected, whole) = raw(&server, "GET", part, headers).await;
        assert_eq!((head.as_str(), body.len()), (expected.as_str(), 0), "{headers}");
        assert!(head.contains(&format!("content-length: {}", whole.len())), "{head}");
        assert!(!whole.is_empty());
    }
    for headers in ["", "accept-encoding: gzip\r\n"] {
        let (head, body) = raw(&server, "HEAD", "/metrics", headers).await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: String = length.chars().take_while(char::is_ascii_digit).collect();
        assert!(length.parse::<usize>().unwrap() > 1_000 && body.is_empty(), "{head}");
    }
    let (head, body) = raw(&server, "HEAD", "/metrics?x=1", "").await;
    assert!(head.starts_with("HTTP/1.1 400 ") && body.is_empty(), "{head}");
    server.stop().await;
}
