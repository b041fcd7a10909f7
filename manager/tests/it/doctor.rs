//! `doctor` against managers in every state, and against what is no manager.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Json, Router, http::StatusCode, routing::get};
use serde_json::{Value, json};
use shardmeter_access::testing::{Authority, Files, Pair};
use shardmeter_manager::{
    AccessConfig, Config, Manager,
    clock::{Clock, UnixTime},
    doctor::{Check, Deployment, DoctorArgs, Report, Verdict},
};
use shardmeter_process::testing::{is, until};
use shardmeter_proto::v1::{Hello, report_request::Message as Said};
use tempfile::TempDir;

use crate::{
    journal::on_a_full_disk,
    server::{Server, Stream, hello, snapshot},
};

const DAY: Duration = Duration::from_hours(24);

/// What names a manager's ports.
fn of(server: &Server) -> DoctorArgs {
    at(server.http_addr, server.grpc_addr)
}

fn at(http: SocketAddr, grpc: SocketAddr) -> DoctorArgs {
    let url = |addr| Some(format!("http://{addr}"));
    DoctorArgs { http: url(http), grpc: url(grpc), ..DoctorArgs::default() }
}

fn under_tls(args: DoctorArgs) -> DoctorArgs {
    let secure = |url: Option<String>| url.map(|url| url.replace("http:", "https:"));
    DoctorArgs { http: secure(args.http), grpc: secure(args.grpc), ..args }
}

async fn examine(args: &DoctorArgs) -> Report {
    Deployment::new(args, &Config::default()).unwrap().examine().await
}

/// Verdict, and all that is said.
fn found(report: &Report, check: Check) -> (Verdict, String) {
    let of_check = report.findings.iter().find(|finding| finding.check == check).unwrap();
    let said = [Some(&*of_check.what), of_check.remedy.as_deref()];
    (of_check.verdict, said.into_iter().flatten().collect::<Vec<_>>().join(" -> "))
}

fn expect(report: &Report, check: Check, verdict: Verdict, words: &[&str]) {
    let (is, said) = found(report, check);
    assert_eq!(is, verdict, "{check:?}: {said}\n{report}");
    for word in words {
        assert!(said.contains(word), "{check:?}: {word:?} is not in {said:?}");
    }
}

/// A port where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A stream of shard `shard_id` of `shard_count` that has reported.
async fn reporting(server: &Server, shard_id: u32, shard_count: u32, instance: u8) -> Stream {
    let mut stream = server.stream().await;
    let hello = Hello { shard_id, shard_count, ..hello(instance) };
    stream.say(Said::Hello(hello)).await;
    stream.answer().await;
    stream.say(snapshot(1, &[])).await;
    stream.ack().await;
    stream
}

const HEALTHY: &str = "\
ok    http       http://HTTP answers, N ms
ok    http-tls   no TLS, and none needed on this machine
ok    grpc       http://GRPC answers, N ms
ok    grpc-tls   no TLS, and none needed on this machine
ok    token      nobody needs one to look
ok    ingest     anybody on this machine may report
ok    journal    counts are kept on disk
ok    scrape     N lines, valid, N ms
ok    fleet      ListShards answers: 2 shards, N ms
ok    clock      within 2 s of this machine's
ok    shards     2 of 2 report
ok    rejects    all that was reported was taken
ok    instances  no shard reports by two streams for long
";

fn doctor(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmeter-manager"));
    let output = command.arg("doctor").args(args).env_remove("RUST_LOG").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    (output.status.code(), out, err)
}

// The binary is waited for, and the manager needs a worker of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_deployment_as_an_operator_sees_it() {
    let dir = TempDir::new().unwrap();
    let data_dir = Some(dir.path().to_owned());
    let server = Server::start_with(Config { data_dir, ..Config::default() }).await;
    let _streams = [reporting(&server, 0, 2, 1).await, reporting(&server, 1, 2, 2).await];
    let args = of(&server);
    let (http, grpc) = (args.http.unwrap(), args.grpc.unwrap());
    let args = ["--http", &*http, "--grpc", &*grpc];
    let (code, said, log) = doctor(&args);
    let numbers = regex::Regex::new("[0-9,]+ (ms|lines)").unwrap();
    let golden = said
        .replace(&server.http_addr.to_string(), "HTTP")
        .replace(&server.grpc_addr.to_string(), "GRPC");
    assert_eq!(numbers.replace_all(&golden, "N $1"), HEALTHY, "{log}");
    assert_eq!(code, Some(0));

    let (code, said, _) = doctor(&[&args[..], &["--json"]].concat());
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["verdict"]), (Some(0), &json!("ok")));
    assert_eq!(said["findings"][1]["check"], "http-tls");
    assert_eq!(said["findings"].as_array().unwrap().len(), HEALTHY.lines().count());

    server.stop().await;
    let (code, said, _) = doctor(&args);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\n                 -> start the manager"), "{said}");
    for bad in [
        ["--http", "localhost:30000"],
        ["--http", "ftp://x"],
        ["--http", "http://x/y"],
        ["--http", "http://x:99999"],
    ] {
        let (code, _, log) = doctor(&bad);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains("it is not http://HOST"), "{log}");
    }
    assert_eq!(doctor(&["--view-token-file", "/no/such"]).0, Some(2));
    assert_eq!(doctor(&["--ca-cert", "/no/such"]).0, Some(2));
    assert_eq!(doctor(&["--shards", "0"]).0, Some(2));
}

#[tokio::test]
async fn counts_in_memory_and_no_shards_are_warnings() {
    let server = Server::start().await;
    let report = examine(&of(&server)).await;
    expect(&report, Check::Journal, Verdict::Warning, &["in memory only", "--data-dir"]);
    expect(&report, Check::Shards, Verdict::Warning, &["no shard has ever reported", "start the"]);
    assert!(!report.failed(), "{report}");
}

#[tokio::test]
async fn tokens_that_lack_or_are_not_the_one() {
    let dir = TempDir::new().unwrap();
    let file = |role: &str| {
        let path = dir.path().join(role);
        fs::write(&path, format!("{role}-token\n")).unwrap();
        path
    };
    let access = AccessConfig {
        ingest_token_file: Some(file("ingest")),
        view_token_file: Some(file("view")),
        ..AccessConfig::default()
    };
    let server = Server::start_with(Config { access, ..Config::default() }).await;
    for (token, verdict, words) in [
        (None, Verdict::Failure, ["none was given", "give --view-token-file"]),
        (Some("wrong"), Verdict::Failure, ["is nobody's", "--view-token-file"]),
        (Some("ingest"), Verdict::Failure, ["the ingest token came", "give the view token"]),
        (Some("view"), Verdict::Ok, ["lets in", "none does not"]),
    ] {
        let view_token_file = token.map(file);
        let report = examine(&DoctorArgs { view_token_file, ..of(&server) }).await;
        expect(&report, Check::Token, verdict, &words);
        expect(&report, Check::Ingest, Verdict::Ok, &["needs a token"]);
        let (scrape, fleet) = (found(&report, Check::Scrape), found(&report, Check::Fleet));
        if verdict == Verdict::Ok {
            assert_eq!((scrape.0, fleet.0), (Verdict::Ok, Verdict::Ok), "{report}");
        } else {
            let skipped = (Verdict::Skipped, "not looked at: token failed".to_owned());
            assert_eq!((&scrape, &fleet), (&skipped, &skipped), "{report}");
        }
        assert!(!report.to_string().contains("-token\n"), "{report}");
    }
    // A manager that runs beside it with this configuration.
    let access = AccessConfig { view_token_file: Some(file("view")), ..AccessConfig::default() };
    let config = Config {
        http_addr: server.http_addr,
        grpc_addr: server.grpc_addr,
        access,
        ..Config::default()
    };
    let beside = Deployment::new(&DoctorArgs::default(), &config).unwrap().examine().await;
    expect(&beside, Check::Scrape, Verdict::Ok, &["valid"]);
    expect(&beside, Check::Fleet, Verdict::Ok, &[]);

    let open = Server::start().await;
    let view_token_file = Some(file("view"));
    let report = examine(&DoctorArgs { view_token_file, ..of(&open) }).await;
    expect(&report, Check::Token, Verdict::Warning, &["is not needed"]);
}

/// A manager with this certificate, and who asks it under TLS.
async fn with_certificate(
    server: &Pair,
    client_ca: Option<&Authority>,
) -> (Server, DoctorArgs, Files) {
    let files = Files::new(server, client_ca);
    let server = Server::start_with(Config { tls: files.config(), ..Config::default() }).await;
    let args = under_tls(of(&server));
    (server, args, files)
}

#[tokio::test]
async fn certificates_that_are_trusted_or_not() {
    let authority = Authority::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for (pair, signer, verdict, words) in [
        (authority.server(), Some(&authority), Verdict::Ok, ["trusted", "days"]),
        (authority.server(), None, Verdict::Failure, ["nobody known signed it", "give --ca-cert"]),
        (
            authority.server(),
            Some(&Authority::new()),
            Verdict::Failure,
            ["a CA of the name that is on it", "give --ca-cert"],
        ),
        (
            authority.server_until(now + 5 * DAY + DAY / 2),
            Some(&authority),
            Verdict::Warning,
            ["ends in 5 days", "renew it"],
        ),
        (
            authority.server_until(now - DAY),
            Some(&authority),
            Verdict::Failure,
            ["it has expired", "renew it"],
        ),
    ] {
        let (_server, args, files) = with_certificate(&pair, None).await;
        let ca_cert = signer.map(|signer| files.put("ca.pem", &signer.pem()));
        let view_token_file = Some(files.put("token", "secret"));
        let report = examine(&DoctorArgs { ca_cert, view_token_file, ..args }).await;
        for check in [Check::HttpTls, Check::GrpcTls] {
            expect(&report, check, verdict, &words);
        }
        let (token, said) = found(&report, Check::Token);
        if verdict == Verdict::Failure {
            assert_eq!((token, &*said), (Verdict::Skipped, "not looked at: http-tls failed"));
            expect(&report, Check::Fleet, Verdict::Skipped, &["grpc-tls failed"]);
        } else {
            expect(&report, Check::Scrape, Verdict::Ok, &["valid"]);
            expect(&report, Check::Fleet, Verdict::Ok, &[]);
        }
    }
    let (_server, args, files) = with_certificate(&authority.server(), None).await;
    let ca_cert = Some(files.put("ca.pem", &authority.pem()));
    // This machine too, as far as the socket is concerned.
    let http = args.http.as_ref().map(|url| url.replace("127.0.0.1", "[::ffff:127.0.0.1]"));
    let report = examine(&DoctorArgs { ca_cert, http, ..args }).await;
    let words = ["it is not for the name ::ffff:127.0.0.1", "ask by a name that it is for"];
    expect(&report, Check::HttpTls, Verdict::Failure, &words);
}

#[tokio::test]
async fn a_port_that_asks_for_certificates() {
    let authority = Authority::new();
    let (_server, args, files) = with_certificate(&authority.server(), Some(&authority)).await;
    let args = DoctorArgs { ca_cert: Some(files.put("ca.pem", &authority.pem())), ..args };
    let report = examine(&args).await;
    for check in [Check::Http, Check::Grpc] {
        expect(&report, check, Verdict::Failure, &["give --client-cert and --client-key"]);
    }
    let own = authority.client("a doctor");
    let client_cert = Some(files.put("own.pem", &own.cert));
    let client_key = Some(files.put("own-key.pem", &own.key));
    let report = examine(&DoctorArgs { client_cert, client_key, ..args }).await;
    expect(&report, Check::Ingest, Verdict::Ok, &["needs a certificate"]);
    expect(&report, Check::Fleet, Verdict::Ok, &[]);
    assert!(!report.failed(), "{report}");
}

#[tokio::test]
async fn tls_where_none_was_expected_and_the_other_way_round() {
    let authority = Authority::new();
    let (server, secure, _files) = with_certificate(&authority.server(), None).await;
    let report = examine(&of(&server)).await;
    let [http, grpc] = [secure.http.unwrap(), secure.grpc.unwrap()];
    let cures = [format!("say --http {http}"), format!("say --grpc {grpc}")];
    expect(&report, Check::Http, Verdict::Failure, &["speaks TLS", &cures[0]]);
    expect(&report, Check::Grpc, Verdict::Failure, &["speaks TLS", &cures[1]]);

    let plain = Server::start().await;
    let report = examine(&under_tls(of(&plain))).await;
    let cure = format!("say --http {}", plain.http);
    expect(&report, Check::Http, Verdict::Failure, &["does not speak TLS", &cure, "--tls-cert"]);
    expect(&report, Check::Grpc, Verdict::Failure, &["does not speak TLS", "say --grpc http://"]);

    let report = examine(&at(plain.grpc_addr, plain.http_addr)).await;
    expect(&report, Check::Http, Verdict::Failure, &["is gRPC, not HTTP", "mixed up"]);
    expect(&report, Check::Grpc, Verdict::Failure, &["is HTTP, not gRPC", "mixed up"]);
    let report = examine(&at(server.grpc_addr, server.http_addr)).await;
    expect(&report, Check::Http, Verdict::Failure, &["is gRPC under TLS, not HTTP"]);
    expect(&report, Check::Grpc, Verdict::Failure, &["is HTTP under TLS, not gRPC"]);
}

/// What can be looked at is.
#[tokio::test]
async fn ports_that_nobody_answers_at() {
    let server = Server::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_args = at(silent.local_addr().unwrap(), server.grpc_addr);
    let secure = under_tls(silent_args.clone());
    let secure = DoctorArgs { grpc: silent_args.grpc.clone(), ..secure };
    let (plain, secure) = tokio::join!(examine(&silent_args), examine(&secure));
    for report in [&plain, &secure] {
        expect(report, Check::Http, Verdict::Failure, &["no answer comes within 3s", "it hangs"]);
    }
    let report = plain;
    expect(&report, Check::Scrape, Verdict::Skipped, &["not looked at: http-tls was skipped"]);
    expect(&report, Check::Fleet, Verdict::Ok, &[]);

    let report = examine(&at(server.http_addr, closed())).await;
    expect(&report, Check::Grpc, Verdict::Failure, &["connection is refused", "--grpc-addr"]);
    expect(&report, Check::Fleet, Verdict::Skipped, &["not looked at: grpc failed"]);
    expect(&report, Check::Scrape, Verdict::Ok, &["valid"]);

    let unnamed = DoctorArgs { http: Some("http://no-such.invalid".into()), ..of(&server) };
    let report = examine(&unnamed).await;
    expect(&report, Check::Http, Verdict::Failure, &["the name has no address", "in DNS"]);
}

#[tokio::test]
async fn a_disk_without_room() {
    let dir = TempDir::new().unwrap();
    let (manager, _) = on_a_full_disk(&dir).await;
    let (http, grpc) = (Some(manager.http.clone()), Some(manager.grpc.clone()));
    let report = examine(&DoctorArgs { http, grpc, ..DoctorArgs::default() }).await;
    let words = ["cannot be written: ", "a restart now would", "give the disk of --data-dir room"];
    expect(&report, Check::Journal, Verdict::Failure, &words);
}

#[tokio::test]
async fn shards_that_are_missing_or_there_twice() {
    let server = Server::start().await;
    let _streams = [
        reporting(&server, 0, 20, 1).await,
        reporting(&server, 3, 20, 2).await,
        reporting(&server, 0, 20, 3).await,
    ];
    let report = examine(&of(&server)).await;
    let words = ["2 of 20 report: 1-2, 4-19 never did", "see whether these shards' processes run"];
    expect(&report, Check::Shards, Verdict::Failure, &words);
    // Both began years ago.
    let words = ["for over 10 minutes: shards 0", "end the older process"];
    expect(&report, Check::Instances, Verdict::Warning, &words);
}

#[tokio::test]
async fn shards_that_went_or_should_have() {
    let config = Config {
        report_interval: Duration::from_millis(100),
        stale_after: Duration::from_millis(300),
        ..Config::default()
    };
    let server = Server::start_with(config).await;
    let client = reqwest::Client::new();
    for shard in [4, 5, 9] {
        let url = format!("{}/metrics?shard_id={shard}", server.http);
        client.post(url).body("a 1\n").send().await.unwrap();
    }
    until("they are stale", async || {
        let report = examine(&of(&server)).await;
        let (verdict, said) = found(&report, Check::Shards);
        let words = "0 of 3 report: 4-5, 9 no longer, last 0 s ago";
        if said.starts_with(words) { Ok(verdict) } else { Err(said) }
    })
    .await;

    let both = Server::start().await;
    let ends = [reporting(&both, 0, 2, 1).await, reporting(&both, 1, 2, 2).await];
    expect(&examine(&of(&both)).await, Check::Shards, Verdict::Ok, &["2 of 2 report"]);
    drop(ends);
    until("nobody calls them up", async || {
        let report = examine(&of(&both)).await;
        let (verdict, said) = found(&report, Check::Shards);
        let words = "0 of 2 report: 0-1 lost their streams just now -> ask again in a moment";
        is((verdict, said.starts_with(words)), (Verdict::Warning, true))
    })
    .await;

    let resharded = Server::start().await;
    let _old = reporting(&resharded, 30, 40, 1).await;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let started_at = Some(prost_types::Timestamp { seconds: began.as_secs() as i64, nanos: 0 });
    let mut new = resharded.stream().await;
    new.say(Said::Hello(Hello { shard_count: 1, started_at, ..hello(2) })).await;
    new.answer().await;
    new.say(snapshot(1, &[])).await;
    new.ack().await;
    let report = examine(&of(&resharded)).await;
    let words = ["1 of 1 report, and 30 beyond", "end the processes of before"];
    expect(&report, Check::Shards, Verdict::Warning, &words);
}

#[tokio::test]
async fn what_was_not_taken() {
    let server = Server::start().await;
    let client = reqwest::Client::new();
    for (shard, body) in [(0, "# TYPE a gauge\na 1\n"), (1, "# TYPE a counter\na 1\n")] {
        let url = format!("{}/metrics?shard_id={shard}", server.http);
        client.post(url).body(body).send().await.unwrap();
    }
    let report = examine(&of(&server)).await;
    let words = ["type_conflict: 1 sample of shards 1", "two versions of the bot"];
    expect(&report, Check::Rejects, Verdict::Warning, &words);
    expect(&report, Check::Shards, Verdict::Warning, &["nobody says how many there should be"]);
    for (shards, verdict, words) in [
        (1, Verdict::Warning, "1 of 1 report, and 1 beyond"),
        (2, Verdict::Ok, "2 of 2 report"),
        (5, Verdict::Failure, "2 of 5 report: 2-4 never did"),
    ] {
        let args = DoctorArgs { shards: Some(shards), ..of(&server) };
        expect(&examine(&args).await, Check::Shards, verdict, &[words]);
    }
}

#[tokio::test]
async fn a_clock_that_is_off() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for (clock, words) in [(now - DAY, "s behind this"), (now + DAY, "s ahead of this")] {
        let clock = Clock::starting_at(UnixTime::from_duration(clock));
        let manager = Manager::build_with(Config::default(), clock).await.unwrap();
        let args = at(manager.http_addr(), manager.grpc_addr());
        let running = tokio::spawn(manager.run(std::future::pending()));
        let report = examine(&args).await;
        expect(&report, Check::Clock, Verdict::Warning, &["86", words, "NTP"]);
        running.abort();
    }
}

/// Serves this until the test ends.
async fn fake(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    addr
}

#[tokio::test]
async fn pages_that_no_scraper_can_read() {
    for (page, kind, words) in [
        ("a 1\na 2\n", "text/plain", "line 2: a was there with the same labels before"),
        ("a 1\nb", "text/plain", "the page is cut"),
        ("<html>\u{1b}[2J</html>\n", "text/plain", "is no metric name"),
        ("a 1\n", "text/html", "Content-Type is text/html"),
    ] {
        let served = move || std::future::ready(([("content-type", kind)], page));
        let healthy = Router::new().route("/healthz", get(async || "ok"));
        let addr = fake(healthy.clone().route("/metrics", get(served))).await;
        let report = examine(&at(addr, closed())).await;
        expect(&report, Check::Http, Verdict::Ok, &[]);
        expect(&report, Check::Scrape, Verdict::Failure, &[words, "cannot read"]);
        expect(&report, Check::Journal, Verdict::Failure, &["not ready: 404"]);
        expect(&report, Check::Ingest, Verdict::Failure, &["is it a manager?"]);
    }
    let refused =
        get(async || (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"all\u001b[2Jfull\n"}"#));
    let addr = fake(Router::new().route("/healthz", refused)).await;
    let report = examine(&at(addr, closed())).await;
    expect(&report, Check::Http, Verdict::Failure, &["not well: all\u{1b}[2Jfull\n"]);
    let said = report.to_string();
    assert!(said.contains("not well: all [2Jfull \n"), "what others say moves no cursor: {said}");
}

#[tokio::test]
async fn answers_without_end_are_not_read_nor_said_to_theirs() {
    for (length, words) in [(60_000, "not well: xxxx"), (100_000, "over 65536 bytes")] {
        let text = format!(r#"{{"error":"{}"}}"#, "x".repeat(length));
        let refused = get(move || std::future::ready((StatusCode::SERVICE_UNAVAILABLE, text)));
        let addr = fake(Router::new().route("/healthz", refused)).await;
        let report = examine(&at(addr, closed())).await;
        expect(&report, Check::Http, Verdict::Failure, &[words]);
        assert!(report.to_string().len() < 10_000, "{length}");
    }
}

#[tokio::test]
async fn an_api_and_what_it_lacks() {
    let server = Server::start().await;
    let ready = |status, database, events, manager| {
        (
            status,
            json!({ "status": "ok", "database": database, "events": events, "manager": manager }),
        )
    };
    for ((status, body), verdict, words) in [
        (ready(200, "up", "redis", "up"), Verdict::Ok, "serves"),
        (ready(200, "up", "redis", "down"), Verdict::Warning, "MANAGER_ENDPOINT"),
        (ready(200, "up", "down", "up"), Verdict::Warning, "Redis"),
        (ready(503, "down", "redis", "up"), Verdict::Failure, "has no database"),
        (ready(503, "up", "redis", "up"), Verdict::Failure, "ask again"),
        ((200, json!({ "journal": "up" })), Verdict::Failure, "is it the api?"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let route = get(move || std::future::ready((status, Json(body))));
        let addr = fake(Router::new().route("/readyz", route)).await;
        let args = DoctorArgs { api: Some(format!("http://{addr}")), ..of(&server) };
        expect(&examine(&args).await, Check::Api, verdict, &[words]);
    }
    let api = Some(format!("http://{}", closed()));
    let report = examine(&DoctorArgs { api, ..of(&server) }).await;
    expect(&report, Check::Api, Verdict::Failure, &["refused", "start the api"]);
}
