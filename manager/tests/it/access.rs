//! Who may do what: every role on every route, by HTTP and gRPC.

use std::{fs, path::Path, process::Command};

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use shardmeter_manager::{AccessConfig, Config};
use shardmeter_process::testing::{is, until};
use shardmeter_proto::v1::{
    ForgetShardRequest, ListShardsRequest, MetricType, ReportRequest, WatchShardsRequest,
    admin_service_client::AdminServiceClient, fleet_service_client::FleetServiceClient,
    report_request::Message as Said, telemetry_service_client::TelemetryServiceClient,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    },
    v1alpha,
};

use crate::{
    process::{Running, ends},
    server::{Server, define, delta, hello, snapshot},
};

const ROLES: [&str; 3] = ["ingest", "view", "admin"];

/// The manager with two tokens for each role: `ingest-old`, `ingest-new`, and so on.
async fn with_tokens(dir: &Path) -> Server {
    let file = |role: &str| {
        let path = dir.join(role);
        fs::write(&path, format!("{role}-old\n{role}-new\n")).unwrap();
        Some(path)
    };
    let access = AccessConfig {
        ingest_token_file: file("ingest"),
        view_token_file: file("view"),
        admin_token_file: file("admin"),
        allow_unauthenticated: false,
    };
    Server::start_with(Config { access, ..Config::default() }).await
}

/// What can be sent as Authorization, and the role that it is of.
fn attempts() -> Vec<(Option<String>, Option<&'static str>)> {
    let mut attempts = vec![
        (None, None),
        (Some("Bearer wrong".to_owned()), None),
        (Some("Bearer ingest-ol".to_owned()), None),
        (Some("Bearer ".to_owned()), None),
        (Some("Negotiate ingest-old".to_owned()), None),
        (Some(basic("user", "wrong")), None),
        (Some(basic("ingest-old", "")), None),
    ];
    for role in ROLES {
        for age in ["old", "new"] {
            let token = format!("{role}-{age}");
            attempts.push((Some(basic("whoever", &token)), Some(role)));
            attempts.push((Some(format!("Bearer {token}")), Some(role)));
        }
    }
    attempts
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {both}")
}

/// Whether whoever sends a token of role `has` gets in where `needed` is.
fn expected(needed: &str, has: Option<&str>) -> Result<(), (u16, Code)> {
    match has {
        _ if needed == "anybody" => Ok(()),
        None => Err((401, Code::Unauthenticated)),
        Some(has) if has == needed || (has, needed) == ("admin", "view") => Ok(()),
        Some(_) => Err((403, Code::PermissionDenied)),
    }
}

#[tokio::test]
async fn every_role_on_every_http_route() {
    let dir = TempDir::new().unwrap();
    let server = with_tokens(dir.path()).await;
    let client = reqwest::Client::new();
    let mut refused = [0; 3];
    for (method, path, needed, otherwise) in [
        (Method::POST, "/shard-metrics", "ingest", 200),
        (Method::POST, "/metrics?shard_id=1", "ingest", 200),
        (Method::PUT, "/metrics/job/bot/shard_id/2", "ingest", 200),
        (Method::POST, "/metrics/job/bot/shard_id/2", "ingest", 200),
        (Method::DELETE, "/metrics/job@base64/Ym90/shard_id/2", "ingest", 202),
        (Method::GET, "/metrics", "view", 200),
        (Method::HEAD, "/metrics", "view", 200),
        (Method::GET, "/", "view", 200),
        (Method::GET, "/api/v1/shards", "view", 200),
        (Method::DELETE, "/api/v1/shards/9", "admin", 404),
        (Method::DELETE, "/api/v1/shards/x", "admin", 400),
        (Method::GET, "/healthz", "anybody", 200),
        (Method::GET, "/readyz", "anybody", 200),
    ] {
        for (authorization, has) in attempts() {
            let place = format!("{method} {path} {authorization:?}");
            let mut request = client.request(method.clone(), format!("{}{path}", server.http));
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            if path == "/shard-metrics" {
                request = request.json(&json!({ "shardId": 3, "metrics": "a 1\n" }));
            } else if [Method::POST, Method::PUT].contains(&method) {
                request = request.body("a 1\n");
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let asked = answer.headers().get_all(header::WWW_AUTHENTICATE).iter().count();
            let text = answer.text().await.unwrap();
            match expected(needed, has) {
                Ok(()) => assert_eq!((status, asked), (otherwise, 0), "{place}: {text}"),
                Err((code, _)) => {
                    refused[ROLES.iter().position(|role| *role == needed).unwrap()] += 1;
                    let asks = if code == 401 { 2 } else { 0 };
                    assert_eq!((status, asked), (code, asks), "{place}: {text}");
                    assert_explained(method == Method::HEAD, &text, needed, code);
                }
            }
        }
    }
    let page = client.get(format!("{}/metrics", server.http)).bearer_auth("view-new");
    let page = page.send().await.unwrap().text().await.unwrap();
    for (role, refused) in ROLES.iter().zip(refused) {
        let line = format!("shardmeter_manager_unauthorized_total{{role=\"{role}\"}} {refused}");
        assert!(page.lines().any(|l| l == line), "{line}: {page}");
    }
    server.stop().await;
}

/// An answer that says no says what to send, and repeats nothing that was sent.
fn assert_explained(head: bool, text: &str, needed: &str, code: u16) {
    if head {
        return;
    }
    let answer: Value = serde_json::from_str(text).unwrap();
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains(&format!("{needed} token")), "{error}");
    let explains = error.contains("Authorization: Bearer")
        && error.contains(&format!("--{needed}-token-file"));
    assert_eq!(explains, code == 401, "{error}");
    assert!(!error.contains("-old") && !error.contains("-new"), "{error}");
}

/// What became of one call.
type Called = Result<(), Status>;

fn with_authorization<T>(message: T, authorization: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        let value = MetadataValue::try_from(value).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

async fn report(server: &Server, authorization: Option<&str>) -> Called {
    let (says, said) = mpsc::channel(1);
    says.send(ReportRequest { message: Some(Said::Hello(hello(1))), ..ReportRequest::default() })
        .await
        .unwrap();
    let mut client = TelemetryServiceClient::new(server.channel().await);
    let call = with_authorization(ReceiverStream::new(said), authorization);
    client.report(call).await?.into_inner().message().await.map(drop)
}

async fn forget(server: &Server, authorization: Option<&str>) -> Called {
    let mut client = AdminServiceClient::new(server.channel().await);
    let request = with_authorization(ForgetShardRequest { shard_id: 9 }, authorization);
    match client.forget_shard(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        answer => answer.map(drop),
    }
}

async fn list(server: &Server, authorization: Option<&str>) -> Called {
    let mut client = FleetServiceClient::new(server.channel().await);
    let request = with_authorization(ListShardsRequest {}, authorization);
    client.list_shards(request).await.map(drop)
}

async fn watch(server: &Server, authorization: Option<&str>) -> Called {
    let mut client = FleetServiceClient::new(server.channel().await);
    let request = with_authorization(WatchShardsRequest::default(), authorization);
    client.watch_shards(request).await.map(drop)
}

async fn reflect(server: &Server, authorization: Option<&str>) -> Called {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel().await);
    let call = with_authorization(tokio_stream::iter([request]), authorization);
    let answers = client.server_reflection_info(call).await;
    answers?.into_inner().message().await.map(drop)
}

async fn reflect_as_of_old(server: &Server, authorization: Option<&str>) -> Called {
    use v1alpha::server_reflection_request::MessageRequest;
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let channel = server.channel().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let call = with_authorization(tokio_stream::iter([request]), authorization);
    let answers = client.server_reflection_info(call).await;
    answers?.into_inner().message().await.map(drop)
}

async fn health(server: &Server, authorization: Option<&str>) -> Called {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: String::new() };
    client.check(with_authorization(request, authorization)).await.map(drop)
}

#[tokio::test]
async fn every_role_on_every_grpc_service() {
    let dir = TempDir::new().unwrap();
    let server = with_tokens(dir.path()).await;
    for (authorization, has) in attempts() {
        let sent = authorization.as_deref();
        for (what, needed, called) in [
            ("Report", "ingest", report(&server, sent).await),
            ("ForgetShard", "admin", forget(&server, sent).await),
            ("ListShards", "view", list(&server, sent).await),
            ("WatchShards", "view", watch(&server, sent).await),
            ("reflection", "view", reflect(&server, sent).await),
            ("reflection v1alpha", "view", reflect_as_of_old(&server, sent).await),
            ("health", "anybody", health(&server, sent).await),
        ] {
            let place = format!("{what} {authorization:?}");
            match (called, expected(needed, has)) {
                (Ok(()), Ok(())) => {}
                (Err(status), Err((http, code))) => {
                    assert_eq!(status.code(), code, "{place}: {status:?}");
                    let error = json!({ "error": status.message() }).to_string();
                    assert_explained(false, &error, needed, http);
                }
                other => panic!("{place}: {other:?}"),
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn without_tokens_this_machine_may_do_everything() {
    let server = Server::start().await;
    assert!(report(&server, None).await.is_ok());
    assert!(reflect(&server, Some("Bearer any")).await.is_ok());
    assert!(forget(&server, None).await.is_ok());
    let delete = reqwest::Client::new().delete(format!("{}/api/v1/shards/9", server.http));
    assert_eq!(delete.send().await.unwrap().status(), 404);
    server.stop().await;

    // With some token, but none for admins, nobody is one.
    let dir = TempDir::new().unwrap();
    let view = dir.path().join("view");
    fs::write(&view, "view-token").unwrap();
    let access = AccessConfig { view_token_file: Some(view), ..AccessConfig::default() };
    let server = Server::start_with(Config { access, ..Config::default() }).await;
    assert!(report(&server, None).await.is_ok());
    for token in [None, Some("Bearer view-token")] {
        let status = forget(&server, token).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("--admin-token-file"), "{status:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn tokens_change_while_a_stream_stays_open() {
    let dir = TempDir::new().unwrap();
    let ingest = dir.path().join("ingest");
    fs::write(&ingest, "first\n").unwrap();
    let access =
        AccessConfig { ingest_token_file: Some(ingest.clone()), ..AccessConfig::default() };
    let server = Server::start_with(Config { access, ..Config::default() }).await;
    let mut stream = server.stream_with("Bearer first").await;
    stream.say(Said::Hello(hello(1))).await;
    stream.answer().await;
    stream.say(snapshot(1, &[])).await;
    stream.ack().await;

    let becomes = async |token: &str, valid: bool| {
        let bearer = format!("Bearer {token}");
        until(token, async || is(report(&server, Some(&bearer)).await.is_ok(), valid)).await;
    };
    fs::write(&ingest, "first\nsecond\n").unwrap();
    becomes("second", true).await;
    becomes("first", true).await;
    fs::write(&ingest, "second\n").unwrap();
    becomes("first", false).await;
    becomes("second", true).await;
    // `report` above ended our instance's stream: the newest stream of an instance is the one that counts.
    let mut stream = server.stream_with("Bearer second").await;
    stream.say(Said::Hello(hello(2))).await;
    stream.answer().await;
    fs::write(&ingest, "third\n").unwrap();
    becomes("third", true).await;
    becomes("second", false).await;
    stream.say(snapshot(1, &[])).await;
    stream.say(delta(2, &[])).await;
    assert_eq!(stream.ack().await.sequence, 1);
    assert_eq!(stream.ack().await.sequence, 2);
    server.stop().await;
}

#[test]
fn what_is_open_to_others_is_refused_at_the_start() {
    let manager = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmeter-manager"));
        let output = command.args(args).envs(env.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, flag) in [
        (["--http-addr", "0.0.0.0:0", "--grpc-addr", "127.0.0.1:0"], "--http-addr 0.0.0.0:0"),
        (["--http-addr", "127.0.0.1:0", "--grpc-addr", "[::]:0"], "--grpc-addr [::]:0"),
    ] {
        let (code, log) = manager(&args, &[]);
        assert_eq!(code, Some(2), "{log}");
        for named in [flag, "--ingest-token-file", "--tls-client-ca", "--allow-unauthenticated"] {
            assert!(log.contains(named), "{named}: {log}");
        }
        let view_only = [("SHARDMETER_VIEW_TOKEN_FILE", "/etc/hostname")];
        assert_eq!(manager(&args, &view_only).0, Some(2));
    }
    let dir = TempDir::new().unwrap();
    for (text, reason) in [("", "it has no token"), ("a\nb\nc", "line 3 has a third token")] {
        let file = dir.path().join("tokens");
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let (code, log) = ends(&["--ingest-token-file", file], &[]);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(reason) && log.contains(file), "{log}");
    }
    let unknown = dir.path().join("manager.toml");
    fs::write(&unknown, "[limits]\nstream = 1\n").unwrap();
    let (code, log) = ends(&[], &[("SHARDMETER_CONFIG", unknown.to_str().unwrap())]);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("unknown field `stream`") && log.contains("line 2"), "{log}");
}

#[test]
fn what_is_open_on_purpose_starts() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tokens");
    fs::write(&file, "a-token\n").unwrap();
    for [name, value] in [
        ["SHARDMETER_ALLOW_UNAUTHENTICATED", "true"],
        ["SHARDMETER_INGEST_TOKEN_FILE", file.to_str().unwrap()],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardmeter-manager"));
        command.args(["--http-addr", "0.0.0.0:0", "--grpc-addr", "[::]:0"]).env(name, value);
        assert!(Running::spawn(command).http.starts_with("http://0.0.0.0:"));
    }
}

/// With curl's own ways to send a token, at the most talkative log level.
#[tokio::test]
async fn no_log_has_a_token() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("tokens");
    fs::write(&file, "s3cret-of-ours\n").unwrap();
    let file = file.to_str().unwrap();
    let flags = ["--ingest-token-file", file, "--view-token-file", file, "--log", "trace"];
    let manager = Running::start(&flags, &[]);
    let curl = |args: &[&str]| {
        let url = format!("{}/metrics", manager.http);
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(args)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(curl(&["-u", "prometheus:s3cret-of-ours"]), 200);
    assert_eq!(curl(&["-H", "Authorization: Bearer s3cret-of-ours"]), 200);
    assert_eq!(curl(&["-u", "s3cret-of-ours:s3cret-of-others"]), 401);
    let channel = tonic::transport::Channel::from_shared(manager.grpc.clone()).unwrap();
    let mut client = TelemetryServiceClient::new(channel.connect().await.unwrap());
    for (token, code) in
        [("s3cret-of-ours", None), ("s3cret-of-others", Some(Code::Unauthenticated))]
    {
        let hello =
            ReportRequest { message: Some(Said::Hello(hello(1))), ..ReportRequest::default() };
        let call =
            with_authorization(tokio_stream::iter([hello]), Some(&format!("Bearer {token}")));
        let called = client.report(call).await;
        assert_eq!(called.err().map(|status| status.code()), code);
    }
    let log = manager.log_until("unauthorized: ").await;
    assert!(log.contains("TRACE") && log.contains("role=\"ingest\""), "{log}");
    assert!(!log.contains("s3cret-of"), "a token is in the log");
}

#[tokio::test]
async fn statuses_of_what_is_not_there_need_no_token() {
    let dir = TempDir::new().unwrap();
    let server = with_tokens(dir.path()).await;
    let client = reqwest::Client::new();
    let missing = client.get(format!("{}/no-such-page", server.http)).send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    let method = client.put(format!("{}/shard-metrics", server.http)).send().await.unwrap();
    assert_eq!(method.status(), StatusCode::METHOD_NOT_ALLOWED);
    server.stop().await;
}

#[tokio::test]
async fn an_admin_makes_it_forget_a_shard() {
    let dir = TempDir::new().unwrap();
    let server = with_tokens(dir.path()).await;
    let report = async |sequence, count| {
        let mut stream = server.stream_with("Bearer ingest-new").await;
        stream.say(Said::Hello(hello(1))).await;
        stream.answer().await;
        stream.say(define("c_total", MetricType::Counter, 0)).await;
        stream.say(snapshot(sequence, &[(0, count)])).await;
        stream.ack().await;
        stream
    };
    let mut before = report(1, 7.0).await;
    let page = async || {
        let page = reqwest::Client::new().get(format!("{}/metrics", server.http));
        page.bearer_auth("admin-old").send().await.unwrap().text().await.unwrap()
    };
    let counted = |page: &str| {
        let line = page.lines().find_map(|l| l.strip_prefix("c_total{shard_id=\"0\"} "));
        line.map(|value| value.parse::<f64>().unwrap())
    };
    assert_eq!(counted(&page().await), Some(7.0));

    let delete = reqwest::Client::new().delete(format!("{}/api/v1/shards/0", server.http));
    let answer = delete.bearer_auth("admin-new").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer, json!({ "shard_id": 0, "series": 0, "alive": true }));
    assert_eq!(counted(&page().await), Some(0.0), "it lives, and counts from zero");
    // Its series are defined anew, on another stream; the instance and what it says are the same.
    assert_eq!(before.next().await.unwrap_err().code(), Code::Unavailable);
    let _after = report(2, 9.0).await;
    assert_eq!(counted(&page().await), Some(2.0));

    let mut admin = AdminServiceClient::new(server.channel().await);
    let request = ForgetShardRequest { shard_id: 0 };
    let forgotten = admin.forget_shard(with_authorization(request, Some("Bearer admin-old"))).await;
    assert!(forgotten.unwrap().into_inner().alive);
    assert_eq!(counted(&page().await), Some(0.0));
    server.stop().await;
}

/// A browser on this machine asks what a page of elsewhere says.
#[tokio::test]
async fn pages_of_elsewhere_see_and_change_nothing_where_no_token_is_needed() {
    let server = Server::start().await;
    let client = reqwest::Client::new();
    let ask = async |method: Method, path: &str, host: &str, origin: Option<&str>| {
        let url = format!("http://{}{path}", server.http_addr);
        let mut request = client.request(method, url).header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let answer = request.body("guild_count 1\n").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let post = "/metrics?shard_id=0";
    for (method, path) in [
        (Method::GET, "/metrics"),
        (Method::GET, "/api/v1/shards"),
        (Method::POST, post),
        (Method::DELETE, "/api/v1/shards/0"),
    ] {
        let (status, said) = ask(method, path, "evil.example", None).await;
        assert_eq!(status, 403, "{path}");
        assert!(said.contains("localhost"), "{said}");
    }
    let (status, said) = ask(Method::POST, post, "localhost", Some("https://evil.example")).await;
    assert!(status == 403 && said.contains("Origin"), "{said}");
    assert_eq!(ask(Method::GET, "/metrics", "127.0.0.1:1", None).await.0, 200);
    assert_eq!(ask(Method::POST, post, "localhost", None).await.0, 200);
    let own = Some("http://localhost:8080");
    assert_eq!(ask(Method::POST, post, "localhost:30000", own).await.0, 200);
}
