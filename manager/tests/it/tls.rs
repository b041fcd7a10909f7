//! TLS on both ports, with curl and tonic's client.

use std::process::{Command, Stdio};

use shardmeter_access::testing::{Authority, Files, Pair};
use shardmeter_manager::{BuildError, Config, Manager, TlsConfig};
use shardmeter_process::testing::until;
use shardmeter_proto::v1::report_request::Message as Said;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::{
    process::Running,
    server::{Server, Stream, delta, hello, snapshot},
};

/// What curl gets: status, or its exit code.
fn curl(url: &str, args: &[&str]) -> Result<(u16, String), i32> {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}", url]).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        return Err(output.status.code().unwrap());
    }
    let said = String::from_utf8(output.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    Ok((status.parse().unwrap(), body.to_owned()))
}

async fn start(files: &Files) -> Server {
    Server::start_with(Config { tls: files.config(), ..Config::default() }).await
}

/// A Report stream under TLS, whose Hello was welcomed.
async fn stream(
    server: &Server,
    authority: &Authority,
    identity: Option<&Pair>,
    instance: u8,
) -> Result<Stream, Box<dyn std::error::Error>> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    if let Some(Pair { cert, key }) = identity {
        tls = tls.identity(Identity::from_pem(cert, key));
    }
    let endpoint = Channel::from_shared(format!("https://{}", server.grpc_addr))?;
    let channel = endpoint.tls_config(tls)?.connect().await?;
    let mut stream = Stream::open(channel, None).await?;
    stream.say(Said::Hello(hello(instance))).await;
    stream.next().await?.expect("no Welcome");
    Ok(stream)
}

// curl waits for the manager, which needs a worker of its own.
#[tokio::test(flavor = "multi_thread")]
async fn both_ports_speak_tls_and_nothing_else() {
    let authority = Authority::new();
    let files = Files::new(&authority.server(), None);
    let server = start(&files).await;
    let ca = files.put("ca.pem", &authority.pem());
    let ca = ["--cacert", ca.to_str().unwrap()];
    let url = format!("https://{}/metrics", server.http_addr);
    let (status, page) = curl(&url, &ca).unwrap();
    assert!(status == 200 && page.contains("shardmeter_manager_build_info"), "{page}");
    assert_eq!(curl(&url, &[]).unwrap_err(), 60, "a certificate that curl does not know");
    curl(&url.replace("https", "http"), &[]).unwrap_err();
    // The port is HTTP/1.1's, whatever else is offered.
    let http2 = [&ca[..], &["--http2"]].concat();
    assert_eq!(curl(&url, &http2).unwrap().0, 200);

    let mut stream = stream(&server, &authority, None, 1).await.unwrap();
    stream.say(snapshot(1, &[])).await;
    assert_eq!(stream.ack().await.sequence, 1);
    let plain = Channel::from_shared(format!("http://{}", server.grpc_addr)).unwrap();
    let plain = match plain.connect().await {
        Ok(channel) => Stream::open(channel, None).await.map(drop).map_err(|_| ()),
        Err(_) => Err(()),
    };
    assert_eq!(plain, Err(()));
    server.stop().await;
}

// curl waits for the manager, which needs a worker of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_ca_asks_for_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.server(), Some(&authority));
    let server = start(&files).await;
    let ours = authority.client("shard-7");
    let theirs = stranger.client("shard-7");
    stream(&server, &authority, Some(&ours), 1).await.unwrap();
    for identity in [None, Some(&theirs), Some(&authority.server())] {
        assert!(stream(&server, &authority, identity, 1).await.is_err());
    }

    let url = format!("https://{}/metrics", server.http_addr);
    let ca = files.put("ca.pem", &authority.pem());
    let ca = ca.to_str().unwrap();
    let with = |pair: &Pair| {
        let (cert, key) = (files.put("c.pem", &pair.cert), files.put("k.pem", &pair.key));
        let [cert, key] = [cert, key].map(|path| path.to_str().unwrap().to_owned());
        curl(&url, &["--cacert", ca, "--cert", &cert, "--key", &key])
    };
    assert_eq!(with(&ours).unwrap().0, 200);
    with(&theirs).unwrap_err();
    curl(&url, &["--cacert", ca]).unwrap_err();
    server.stop().await;
}

#[tokio::test]
async fn certificates_change_while_a_stream_stays_open() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old.server(), None);
    let server = start(&files).await;
    let mut open = stream(&server, &old, None, 1).await.unwrap();
    open.say(snapshot(1, &[])).await;
    open.ack().await;

    let next = new.server();
    files.put("cert.pem", &next.cert);
    files.put("key.pem", &next.key);
    until("the new certificate", || stream(&server, &new, None, 2)).await;
    assert!(stream(&server, &old, None, 2).await.is_err());
    open.say(delta(2, &[])).await;
    assert_eq!(open.ack().await.sequence, 2);
    server.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let (good, other) = (authority.server(), authority.server());
    let empty_pem = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    let broken_pem = "-----BEGIN PRIVATE KEY-----\nMIGH*\n-----END PRIVATE KEY-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (name, text, flag, reason) in [
        ("cert.pem", None, "--tls-cert", "No such file"),
        ("cert.pem", Some(""), "--tls-cert", "no certificate in PEM"),
        ("cert.pem", Some(&*good.key), "--tls-cert", "no certificate in PEM"),
        ("cert.pem", Some(&*other.cert), "--tls-cert", "key.pem is not this certificate's"),
        ("cert.pem", Some(empty_pem), "--tls-cert", ""),
        ("key.pem", None, "--tls-key", "No such file"),
        ("key.pem", Some(&*good.cert), "--tls-key", "no private key in PEM"),
        ("key.pem", Some(broken_pem), "--tls-key", "PEM is broken"),
        ("key.pem", Some(no_key), "--tls-key", "private key"),
        ("client-ca.pem", Some("rubbish"), "--tls-client-ca", "no certificate in PEM"),
        ("client-ca.pem", Some(empty_pem), "--tls-client-ca", ""),
    ] {
        let files = Files::new(&good, Some(&authority));
        match text {
            Some(text) => drop(files.put(name, text)),
            None => std::fs::remove_file(files.path(name)).unwrap(),
        }
        let built = Manager::build(Config { tls: files.config(), ..Config::default() }).await;
        let error = built.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, BuildError::Tls(_)), "{name} {text:?}: {said}");
        let file = files.path(name);
        assert!(said.starts_with(&format!("{flag} {}: ", file.display())), "{text:?}: {said}");
        assert!(said.contains(reason), "{name} {text:?}: {said}");
    }
    let tls = TlsConfig { tls_cert: Some("cert".into()), ..TlsConfig::default() };
    let error = Manager::build(Config { tls, ..Config::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "--tls-cert needs --tls-key");
}

/// The binary, its flags, and who did what in its log.
#[tokio::test]
async fn an_admin_with_a_certificate_is_named_in_the_log() {
    let authority = Authority::new();
    let files = Files::new(&authority.server(), Some(&authority));
    let admin = authority.client("an admin");
    let ca = files.put("ca.pem", &authority.pem());
    let token = files.put("token", "an-admin-token");
    let (cert, key) = (files.put("c.pem", &admin.cert), files.put("k.pem", &admin.key));
    let [ca, cert, key, token, server_cert, server_key, client_ca] = [
        ca,
        cert,
        key,
        token,
        files.path("cert.pem"),
        files.path("key.pem"),
        files.path("client-ca.pem"),
    ]
    .map(|path| path.to_str().unwrap().to_owned());
    let manager = Running::start(
        &["--tls-cert", &server_cert, "--tls-key", &server_key, "--admin-token-file", &token],
        &[("SHARDMETER_TLS_CLIENT_CA", &client_ca)],
    );
    let url = format!("{}/api/v1/shards/3", manager.http.replace("http:", "https:"));
    let as_admin = ["-X", "DELETE", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let (status, _) = curl(&url, &as_admin).unwrap();
    assert_eq!(status, 401, "a certificate is no token");
    let (status, body) =
        curl(&url, &[&as_admin[..], &["-u", "me:an-admin-token"]].concat()).unwrap();
    assert_eq!((status, &*body), (404, "{\"error\":\"no shard 3 has reported\"}"));
    let log = manager.log_until("forget shard").await;
    let line = log.lines().find(|line| line.contains("forget shard")).unwrap();
    for named in ["role=\"admin\"", "peer=127.0.0.1:", "CN=an admin", "shard_id=3"] {
        assert!(line.contains(named), "{named}: {line}");
    }
}
