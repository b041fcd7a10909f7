//! A judge that is not ours reads the OpenAPI document and holds the api to it.

use std::{path::Path, process::Stdio};

use shardmeter_api::{AccessConfig, Config, ManagerConfig};
use tokio::process::Command;

use crate::{
    backend::{Backend, on_both},
    manager::Manager,
    server::{Server, config},
};

/// Requests made up for each operation, in each of its phases.
const EXAMPLES: &str = "25";

on_both!(no_answer_is_undocumented);

async fn no_answer_is_undocumented(backend: Backend) {
    let manager = Manager::start(3).await;
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "the-admins\n").unwrap();
    let access = AccessConfig {
        // Who sends none, or another, has to be refused, also where looking is all they want.
        view_token_file: Some(tokens.clone()),
        admin_token_file: Some(tokens),
        ..config().access
    };
    let config = Config { manager: ManagerConfig::at(manager.endpoint()), access, ..config() };
    let server = Server::start_as(backend, config).await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/schemathesis");
    let run = Command::new(program)
        .arg("--config-file")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/openapi.json", server.url))
        .args(["--header", "Authorization: Bearer the-admins"])
        .args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", "1"])
        // Its answer does not end.
        .args(["--exclude-path", "/api/v1/events", "--request-timeout", "10", "--no-color"])
        .args(["--suppress-health-check", "all", "--generation-database", "none"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = run.await.expect("schemathesis is missing; run scripts/setup");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    server.stop().await;
    manager.stop().await;
}
