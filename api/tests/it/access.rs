//! Who may do what, over real sockets.

use std::{num::NonZeroU32, process::Stdio};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use shardmeter_access::testing::{Authority, Files, Pair};
use shardmeter_api::{AccessConfig, Api, BuildError, Config, TlsConfig};
use shardmeter_process::testing::{is, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    backend::{Backend, Database},
    server::{Server, no_manager, problem},
};

const SETTINGS: &str = "/api/v1/guilds/7/settings";

struct Guarded {
    files: Files,
    server: Server,
}

impl Guarded {
    /// With a view token and an admin token.
    async fn start() -> Self {
        let files = Files::new(&Authority::new().server(), None);
        let access = AccessConfig {
            view_token_file: Some(files.put("view", "the-viewers\n")),
            admin_token_file: Some(files.put("admin", "the-admins\n")),
            ..AccessConfig::default()
        };
        Self { server: start(access, TlsConfig::default()).await, files }
    }

    fn change(&self) -> RequestBuilder {
        let body = json!({ "disabled_commands": [], "command_prefix": "!" });
        self.server.put(SETTINGS, &body).header("if-none-match", "*")
    }
}

async fn start(access: AccessConfig, tls: TlsConfig) -> Server {
    let database = Database::start(Backend::Sqlite).await;
    let config = Config { database_url: database.url(), access, tls, ..no_manager() };
    let mut server = Server::start_with(config).await;
    server.database = Some(database);
    server
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_route_is_for_those_who_have_the_token_of_its_role() {
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    server.wait_until_ready().await;
    let (viewer, admin) = ("the-viewers", "the-admins");
    for path in ["/metrics", "/openapi.json", "/docs/", "/api/v1/commands/top", SETTINGS] {
        let answer = server.get(path).send().await.unwrap();
        let asks: Vec<_> = answer.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(asks, ["Bearer realm=\"shardmeter\"", "Basic realm=\"shardmeter\""]);
        let detail = problem(answer, 401, "unauthorized").await;
        assert!(detail.contains("--view-token-file"), "{detail}");
        assert_eq!(status(server.get(path).bearer_auth("guess")).await, 401, "{path}");
        for token in [viewer, admin] {
            assert_eq!(status(server.get(path).bearer_auth(token)).await, 200, "{path}");
            assert_eq!(status(server.get(path).basic_auth("me", Some(token))).await, 200, "{path}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(server.get(path)).await, 200, "{path} is for anybody");
    }
    problem(guarded.change().send().await.unwrap(), 401, "unauthorized").await;
    let answer = guarded.change().bearer_auth(viewer).send().await.unwrap();
    let detail = problem(answer, 403, "forbidden").await;
    assert!(!detail.contains(viewer) && detail.contains("the view token came"), "{detail}");
    let read: Value =
        server.get(SETTINGS).bearer_auth(viewer).send().await.unwrap().json().await.unwrap();
    assert_eq!(read["revision"], 0, "nothing was changed");
    let page =
        server.get("/metrics").bearer_auth(viewer).send().await.unwrap().text().await.unwrap();
    for line in [
        "shardmeter_api_unauthorized_total{role=\"view\"} 10",
        "shardmeter_api_unauthorized_total{role=\"admin\"} 2",
        "http_request_errors_total{error_type=\"forbidden\",method=\"PUT\",route=\"/api/v1/guilds/{guild_id}/settings\"} 1",
    ] {
        assert!(page.contains(line), "{line}:\n{page}");
    }
    guarded.server.stop().await;
}

#[tokio::test]
async fn tokens_change_while_it_runs() {
    let guarded = Guarded::start().await;
    let ask = |token: &str| guarded.server.get("/metrics").bearer_auth(token);
    guarded.files.put("view", "the-viewers\nthe-next\n");
    until("the next token", async || is(status(ask("the-next")).await, 200)).await;
    assert_eq!(status(ask("the-viewers")).await, 200);
    guarded.server.stop().await;
}

#[tokio::test]
async fn without_any_token_this_machine_may_change_settings() {
    let server = Server::start(Backend::Sqlite).await;
    let body = json!({ "disabled_commands": [], "command_prefix": "!" });
    let answer = server.put(SETTINGS, &body).header("if-match", "\"0\"").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_port_that_others_reach_is_not_opened_to_anybody() {
    let files = Files::new(&Authority::new().server(), None);
    let open = |access: AccessConfig| {
        let config = Config {
            addr: ([0, 0, 0, 0], 0).into(),
            database_url: format!("sqlite://{}", files.path("db").display()).into(),
            access,
            ..Config::default()
        };
        Api::build(config)
    };
    let error = open(AccessConfig::default()).await.unwrap_err();
    assert!(error.is_config());
    for flag in ["--view-token-file", "--tls-client-ca", "--allow-unauthenticated"] {
        assert!(error.to_string().contains(flag), "{error}");
    }
    let missing = Some("/no/such/file".into());
    let error = open(AccessConfig { view_token_file: missing, ..AccessConfig::default() }).await;
    let error = error.unwrap_err();
    assert!(matches!(error, BuildError::Gate(_)) && error.is_config(), "{error}");
    assert!(error.to_string().starts_with("--view-token-file /no/such/file: "), "{error}");
    let allowed = AccessConfig { allow_unauthenticated: true, ..AccessConfig::default() };
    open(allowed).await.unwrap();
}

#[tokio::test]
async fn one_address_asks_so_often_and_no_more() {
    let requests_per_second = NonZeroU32::new(1).unwrap();
    let access = AccessConfig { requests_per_second, ..AccessConfig::default() };
    let server = start(access, TlsConfig::default()).await;
    let mut refused = None;
    for _ in 0..1_000 {
        let answer = server.get("/openapi.json").send().await.unwrap();
        if answer.status() != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("never refused");
    let retry_after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&retry_after));
    let detail = problem(refused, 429, "too_many").await;
    assert!(detail.contains("more than 1 requests a second"), "{detail}");
    assert_eq!(status(server.get("/healthz")).await, 200, "who looks whether it lives may");
    assert_eq!(status(server.get("/metrics")).await, 200, "a scraper has a rate of its own");
    until("who asks for what is not there is one who asks", async || {
        is(status(server.get("/no/such/page")).await, 429)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn each_request_has_an_id() {
    let server = Server::start(Backend::Sqlite).await;
    for path in ["/healthz", "/no/such/page"] {
        let answer = server.get(path).header("x-request-id", "from-the-proxy.1").send().await;
        assert_eq!(answer.unwrap().headers()["x-request-id"], "from-the-proxy.1");
        for odd in ["a b", "\u{fc}", ""] {
            let answer = server.get(path).header("x-request-id", odd).send().await.unwrap();
            assert_eq!(answer.headers()["x-request-id"].len(), 16, "{odd:?}");
        }
    }
    let answer = server.get("/no/such/page").send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let document: Value = answer.json().await.unwrap();
    assert_eq!(document["request_id"], id);
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_if_they_are_named() {
    let preflight = |server: &Server, origin: &str, method: &str| {
        let url = format!("{}{SETTINGS}", server.url);
        server
            .client
            .request(Method::OPTIONS, url)
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,if-match,content-type")
    };
    const HOME: &str = "https://dashboard.example";
    let off = Server::start(Backend::Sqlite).await;
    let answer = preflight(&off, HOME, "PUT").send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let answer = off.get(SETTINGS).header("origin", HOME).send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    off.stop().await;

    let files = Files::new(&Authority::new().server(), None);
    let access = AccessConfig {
        cors_origin: vec![HOME.parse().unwrap(), "http://localhost:5173".parse().unwrap()],
        view_token_file: Some(files.put("view", "the-viewers\n")),
        ..AccessConfig::default()
    };
    let server = start(access, TlsConfig::default()).await;
    server.wait_until_ready().await;
    let answer = preflight(&server, HOME, "PUT").send().await.unwrap();
    assert_eq!(answer.status(), 200, "browsers send no token with this");
    assert_eq!(answer.headers()["access-control-allow-origin"], HOME);
    assert_eq!(answer.headers()["access-control-allow-methods"], "GET,PUT");
    let answer = server.get(SETTINGS).bearer_auth("the-viewers").header("origin", HOME);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], HOME);
    assert_eq!(answer.headers()["access-control-expose-headers"], "etag,retry-after,x-request-id");
    // Also what is refused can be read.
    let answer = server.get(SETTINGS).header("origin", HOME).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["access-control-allow-origin"], HOME);
    for stranger in ["https://evil.example", "https://dashboard.example.evil.example", "null"] {
        let answer = preflight(&server, stranger, "GET").send().await.unwrap();
        assert!(!answer.headers().contains_key("access-control-allow-origin"), "{stranger}");
    }
    server.stop().await;
}

/// A browser on this machine asks what a page of elsewhere says.
#[tokio::test]
async fn without_any_token_pages_of_elsewhere_see_and_change_nothing() {
    const HOME: &str = "https://dashboard.example";
    let access =
        AccessConfig { cors_origin: vec![HOME.parse().unwrap()], ..AccessConfig::default() };
    let server = start(access, TlsConfig::default()).await;
    server.wait_until_ready().await;
    for path in ["/metrics", "/openapi.json", "/docs/", "/api/v1/events", SETTINGS] {
        let answer = server.get(path).header("host", "evil.example:3000").send().await.unwrap();
        let detail = problem(answer, 403, "forbidden").await;
        assert!(detail.contains("localhost") && detail.contains("--view-token-file"), "{detail}");
    }
    let body = json!({ "disabled_commands": [], "command_prefix": "!" });
    let put = |host: &str, origin: &str| {
        let put = server.put(SETTINGS, &body).header("if-match", "*");
        put.header("host", host).header("origin", origin).send()
    };
    for (host, origin) in
        [("evil.example", "http://evil.example"), ("localhost", "http://evil.example")]
    {
        let detail = problem(put(host, origin).await.unwrap(), 403, "forbidden").await;
        assert!(detail.contains("--admin-token-file"), "{detail}");
    }
    assert_eq!(server.json(SETTINGS).await["revision"], 0, "nothing was changed");
    for origin in [HOME, "http://localhost:5173"] {
        assert_eq!(put("localhost:3000", origin).await.unwrap().status(), 200, "{origin}");
    }
    for path in ["/healthz", "/readyz"] {
        let health = server.get(path).header("host", "api.internal");
        assert_eq!(status(health).await, 200, "whoever looks whether it lives may");
    }
    server.stop().await;

    let access = AccessConfig { allow_unauthenticated: true, ..AccessConfig::default() };
    let server = start(access, TlsConfig::default()).await;
    assert_eq!(status(server.get("/metrics").header("host", "behind.a.proxy")).await, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let server = Server::start(Backend::Sqlite).await;
    let body = json!({ "disabled_commands": [], "command_prefix": "!".repeat(64 << 10) });
    let answer = server.put(SETTINGS, &body).header("if-match", "\"0\"").send().await.unwrap();
    problem(answer, 413, "too_large").await;
    server.stop().await;
}

#[tokio::test]
async fn it_speaks_tls_and_asks_for_certificates() {
    let authority = Authority::new();
    let files = Files::new(&authority.server(), Some(&authority));
    let server = start(AccessConfig::default(), files.config()).await;
    let Pair { cert, key } = authority.client("a dashboard");
    let (cert, key) = (files.put("c.pem", &cert), files.put("k.pem", &key));
    let url = format!("{}/healthz", server.url.replace("http:", "https:"));
    let curl = async |with_certificate: bool| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(files.path("client-ca.pem"));
        if with_certificate {
            curl.arg("--cert").arg(&cert).arg("--key").arg(&key);
        }
        let output = curl.arg(&url).stdin(Stdio::null()).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(true).await, "ok\n");
    assert_eq!(curl(false).await, "");
    server.get("/healthz").send().await.unwrap_err();
    server.stop().await;
}

/// Whoever listens keeps the api up no longer than it takes to tell them.
#[tokio::test]
async fn a_peer_that_does_not_read_does_not_keep_it_up() {
    let server = Server::start(Backend::Sqlite).await;
    let addr = server.url.strip_prefix("http://").unwrap();
    let mut listens = TcpStream::connect(addr).await.unwrap();
    listens.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    listens.read_exact(&mut [0; 15]).await.unwrap();
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"PUT /api/v1/guilds/7/settings HTTP/1.1\r\ncontent-length: 9\r\n")
        .await
        .unwrap();
    server.stop().await;
}
