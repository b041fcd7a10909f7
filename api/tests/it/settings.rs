//! Guild settings: what is stored, and that no change is lost.

use serde_json::{Value, json};
use shardmeter_api::events::Heard;
use shardmeter_process::testing::{is, soon, until};
use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::{
    backend::{Backend, on_both},
    server::{Server, problem},
};

const SETTINGS: &str = "/api/v1/guilds/117483251847168000/settings";

on_both!(
    settings_are_stored,
    a_change_needs_the_revision_that_it_changes,
    of_two_writers_none_loses_a_change,
    a_cache_that_has_them_gets_no_body,
    what_is_no_settings_is_refused,
);

async fn settings_are_stored(backend: Backend) {
    let server = Server::start(backend).await;
    let unset = server.json(SETTINGS).await;
    let defaults = json!({
        "guild_id": "117483251847168000", "revision": 0, "disabled_commands": [], "command_prefix": null,
        "updated_at": null,
    });
    assert_eq!(unset, defaults);
    let new = json!({ "disabled_commands": ["stats", "ping", "stats"], "command_prefix": "!" });
    let answer = server.put(SETTINGS, &new).header("If-Match", "\"0\"").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["disabled_commands"], json!(["ping", "stats"]));
    assert_eq!(said["command_prefix"], "!");
    let first = said["revision"].as_u64().unwrap();
    assert_eq!(etag, format!("\"{first}\""));
    assert_eq!(server.json(SETTINGS).await, said);
    assert_eq!(server.json("/api/v1/guilds/1/settings").await["revision"], 0, "another guild");
    let none = json!({ "disabled_commands": [] });
    let answer = server.put(SETTINGS, &none).header("If-Match", "*").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let said = server.json(SETTINGS).await;
    assert!(said["revision"].as_u64().unwrap() > first, "{said}");
    assert_eq!(said["command_prefix"], json!(null));
    server.stop().await;
}

async fn a_change_needs_the_revision_that_it_changes(backend: Backend) {
    let server = Server::start(backend).await;
    let new = json!({ "disabled_commands": ["ping"] });
    let put = |etag: &str| server.put(SETTINGS, &new).header("If-Match", etag).send();
    let missing = server.put(SETTINGS, &new).send().await.unwrap();
    problem(missing, 428, "precondition_required").await;
    for wrong in ["\"1\"", "W/\"0\"", "\"\"", "\"a\", \"b\""] {
        let answer = put(wrong).await.unwrap();
        assert_eq!(answer.headers()["etag"], "\"0\"");
        problem(answer, 412, "changed").await;
    }
    problem(put("0").await.unwrap(), 400, "invalid").await;
    assert_eq!(server.json(SETTINGS).await["revision"], 0, "nothing was changed");
    assert_eq!(put("\"7\", \"0\"").await.unwrap().status(), 200, "one of a list");
    problem(put("\"0\"").await.unwrap(), 412, "changed").await;
    let first = server.json(SETTINGS).await["revision"].clone();
    assert_eq!(put(&format!("\"{first}\"")).await.unwrap().status(), 200);
    assert!(server.json(SETTINGS).await["revision"].as_u64() > first.as_u64());
    problem(put(&format!("\"{first}\"")).await.unwrap(), 412, "changed").await;
    server.stop().await;
}

/// Each adds commands, one by one, to what it read: in the end all are there.
async fn of_two_writers_none_loses_a_change(backend: Backend) {
    const EACH: usize = 10;
    let server = Server::start(backend).await;
    let mut writers = JoinSet::new();
    for writer in ["a", "b", "c", "d"] {
        let (client, url) = (server.client.clone(), format!("{}{SETTINGS}", server.url));
        writers.spawn(async move {
            let mut written = 0;
            while written < EACH {
                let read = client.get(&url).send().await.unwrap();
                let etag = read.headers()["etag"].clone();
                let mut settings: Value = read.json().await.unwrap();
                let mut disabled = settings["disabled_commands"].take();
                disabled.as_array_mut().unwrap().push(json!(format!("{writer}{written}")));
                let new = json!({ "disabled_commands": disabled });
                let answer = client.put(&url).json(&new).header("If-Match", etag).send().await;
                match answer.unwrap().status().as_u16() {
                    200 => written += 1,
                    412 => {}
                    other => panic!("{other}"),
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let settings = server.json(SETTINGS).await;
    assert_eq!(settings["disabled_commands"].as_array().unwrap().len(), 4 * EACH);
    server.stop().await;
}

async fn a_cache_that_has_them_gets_no_body(backend: Backend) {
    let server = Server::start(backend).await;
    let get = |known: &'static str| server.get(SETTINGS).header("If-None-Match", known).send();
    for known in ["\"0\"", "W/\"0\"", "*", "\"9\", \"0\""] {
        let answer = get(known).await.unwrap();
        assert_eq!(answer.status(), 304, "{known}");
        assert_eq!(answer.headers()["etag"], "\"0\"");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    assert_eq!(get("\"1\"").await.unwrap().status(), 200);
    assert_eq!(get("0").await.unwrap().status(), 200, "no tag: it has quotes");
    server.stop().await;
}

async fn what_is_no_settings_is_refused(backend: Backend) {
    let server = Server::start(backend).await;
    let put = |body: Value| server.put(SETTINGS, &body).header("If-Match", "*").send();
    let many: Vec<_> = (0..101).map(|i| format!("command{i}")).collect();
    for bad in [
        json!([]),
        json!({}),
        json!({ "disabled_commands": null }),
        json!({ "disabled_commands": ["ping"], "prefix": "!" }),
        json!({ "disabled_commands": [""] }),
        json!({ "disabled_commands": ["two words"] }),
        json!({ "disabled_commands": ["a".repeat(33)] }),
        json!({ "disabled_commands": many }),
        json!({ "disabled_commands": [], "command_prefix": "" }),
        json!({ "disabled_commands": [], "command_prefix": "a b" }),
        json!({ "disabled_commands": [], "command_prefix": "!".repeat(17) }),
        json!({ "disabled_commands": [], "command_prefix": 1 }),
    ] {
        problem(put(bad).await.unwrap(), 400, "invalid").await;
    }
    let request = || server.client.put(format!("{}{SETTINGS}", server.url)).header("If-Match", "*");
    problem(request().body("{}").send().await.unwrap(), 415, "unsupported_media_type").await;
    let broken = request().header("Content-Type", "application/json").body("{").send().await;
    problem(broken.unwrap(), 400, "invalid").await;
    let long = json!({ "disabled_commands": ["a".repeat(70_000)] });
    problem(put(long).await.unwrap(), 413, "too_large").await;
    for bad in ["0", "01", "-1", "x", "9000000000000000000", "123456789012345678901", "1.0"] {
        let answer = server.get(&format!("/api/v1/guilds/{bad}/settings")).send().await.unwrap();
        problem(answer, 400, "invalid").await;
    }
    assert_eq!(server.json(SETTINGS).await["revision"], 0, "nothing was changed");
    server.stop().await;
}

/// What the database has, bots are told, whether or not anybody waits for the answer.
#[tokio::test]
async fn a_client_that_leaves_half_way_takes_nothing_back() {
    let server = Server::start(Backend::Postgres).await;
    let disabled = |name: &str| json!({ "disabled_commands": [name] });
    let put = |name: &str| server.put(SETTINGS, &disabled(name)).header("If-Match", "*");
    assert_eq!(put("ping").send().await.unwrap().status(), 200);
    let mut told = server.events.subscribe(None, None);

    // The change waits for somebody else's.
    let url = server.database.as_ref().unwrap().url();
    let mut other = sqlx::AnyConnection::connect(url.expose()).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    let write = sqlx::query("UPDATE guild_settings SET revision = revision");
    write.execute(&mut *transaction).await.unwrap();
    let request = tokio::spawn(put("stats").send());
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
    until("it waits", async || {
        let waiting = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *transaction);
        is(waiting.await.unwrap(), 1)
    })
    .await;
    request.abort();
    request.await.unwrap_err();
    // By then the api knows that the client has left.
    for _ in 0..100 {
        assert_eq!(server.json(SETTINGS).await["disabled_commands"], json!(["ping"]));
    }
    transaction.commit().await.unwrap();

    let Heard::Events(passage) = soon("it is told", told.next()).await.unwrap() else { panic!() };
    let told: Vec<_> = passage.events().map(|event| format!("{event:?}")).collect();
    assert!(told.len() == 1 && told[0].contains("stats"), "{told:?}");
    assert_eq!(server.json(SETTINGS).await["disabled_commands"], json!(["stats"]));
    server.stop().await;
}
