//! The REST side through twilight-http.

use std::time::Duration;

use shardmeter_gateway_sim::{Config, Fault, Place, RateLimitScope, Route};
use tokio::time::Instant;
use twilight_http::api_error::ApiError;
use twilight_http::error::{Error, ErrorType};
use twilight_model::application::command::{Command, CommandType};
use twilight_model::id::Id;

use crate::bot::{Bot, TOKEN, http, response};
use crate::raw::Raw;
use crate::{Sim, within};

/// Status and Discord's code of a refused request.
fn refusal(error: &Error) -> (u16, u64) {
    match error.kind() {
        ErrorType::Response { status, error: ApiError::General(error), .. } => {
            (status.get(), error.code)
        }
        kind => panic!("not refused by the server: {kind:?}"),
    }
}

#[expect(deprecated, reason = "the struct has a deprecated field and no constructor")]
fn command(name: &str) -> Command {
    Command {
        application_id: None,
        contexts: None,
        default_member_permissions: None,
        description: format!("Says {name}"),
        description_localizations: None,
        dm_permission: None,
        guild_id: None,
        id: None,
        integration_types: None,
        kind: CommandType::ChatInput,
        name: name.to_owned(),
        name_localizations: None,
        nsfw: None,
        options: Vec::new(),
        version: Id::new(1),
    }
}

#[tokio::test]
async fn gateway_bot_counts_session_starts() {
    let config = Config { shard_count: 7, max_concurrency: 16, ..Config::default() };
    let sim = Sim::start(config).await;
    let http = http(&sim, TOKEN);
    let before = http.gateway().authed().await.unwrap().model().await.unwrap();
    assert_eq!((before.shards, &before.url), (7, &sim.gateway_url));
    assert_eq!(before.session_start_limit.max_concurrency, 16);
    assert_eq!(before.session_start_limit.remaining, before.session_start_limit.total);

    let _bot = Bot::start(&sim, 3);
    within(sim.control.until_connected(3)).await;
    let after = http.gateway().authed().await.unwrap().model().await.unwrap();
    let used = before.session_start_limit.remaining - after.session_start_limit.remaining;
    assert_eq!(used, 3);
    assert!(after.session_start_limit.reset_after <= before.session_start_limit.reset_after);
    let plain = http.gateway().await.unwrap().model().await.unwrap();
    assert_eq!(plain.url, sim.gateway_url);
}

#[tokio::test]
async fn a_callback_counts_once() {
    let sim = Sim::start(Config { guilds: 1, ..Config::default() }).await;
    let place = Place::Guild(sim.control.guilds()[0].id);
    let mut raw = Raw::identified(&sim, 0, 1).await;
    sim.control.interaction(place, "ping").await.unwrap();
    let interaction = within(raw.event("INTERACTION_CREATE")).await;
    let id = Id::new(interaction["id"].as_str().unwrap().parse().unwrap());
    let token = interaction["token"].as_str().unwrap();

    let http = http(&sim, TOKEN);
    let client = http.interaction(Id::new(1));
    let wrong = client.create_response(id, "other", &response()).await.unwrap_err();
    assert_eq!(refusal(&wrong), (404, 10_062));
    assert_eq!(sim.control.books().confirmed(), 0);

    let done = client.create_response(id, token, &response()).await.unwrap();
    assert_eq!(done.status().get(), 204);
    assert_eq!(sim.control.books().confirmed(), 1);

    let again = client.create_response(id, token, &response()).await.unwrap_err();
    assert_eq!(refusal(&again), (400, 40_060));
    let never = client.create_response(Id::new(5), token, &response()).await.unwrap_err();
    assert_eq!(refusal(&never), (404, 10_062));

    let books = sim.control.books();
    assert_eq!(books.shards[&0].confirmed, [((place, "ping".to_owned()), 1)].into());
    assert_eq!((books.shards[&0].duplicate_callbacks, books.unknown_callbacks), (1, 2));
    let statuses: Vec<_> =
        [204, 400, 404].iter().map(|status| books.requests[&(Route::Callback, *status)]).collect();
    assert_eq!(statuses, [1, 1, 2]);
}

#[tokio::test]
async fn of_many_callbacks_at_once_one_counts() {
    let sim = Sim::start(Config { guilds: 1, ..Config::default() }).await;
    let mut raw = Raw::identified(&sim, 0, 1).await;
    sim.control.interaction(Place::Dm, "ping").await.unwrap();
    let interaction = within(raw.event("INTERACTION_CREATE")).await;
    let id = Id::new(interaction["id"].as_str().unwrap().parse().unwrap());
    let token = interaction["token"].as_str().unwrap().to_owned();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (http, token) = (http(&sim, TOKEN), token.clone());
        calls.spawn(async move {
            http.interaction(Id::new(1)).create_response(id, &token, &response()).await.is_ok()
        });
    }
    let accepted = within(calls.join_all()).await.into_iter().filter(|ok| *ok).count();
    assert_eq!(accepted, 1);
    let books = sim.control.books();
    assert_eq!((books.confirmed(), books.shards[&0].duplicate_callbacks), (1, 15));
}

#[tokio::test]
async fn a_late_callback_is_refused() {
    let interaction_deadline = Duration::ZERO;
    let sim = Sim::start(Config { guilds: 1, interaction_deadline, ..Config::default() }).await;
    let bot = Bot::start(&sim, 1);
    within(sim.control.until_connected(1)).await;
    sim.control.interaction(Place::Dm, "ping").await.unwrap();
    within(sim.control.until(|books| books.shards[&0].late_callbacks == 1)).await;
    assert_eq!(sim.control.books().confirmed(), 0);
    within(async {
        while bot.seen(0).failed != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn commands_are_registered_and_given_back() {
    let sim = Sim::start(Config::default()).await;
    let http = http(&sim, TOKEN);
    let application = http.current_user_application().await.unwrap().model().await.unwrap();
    let user = http.current_user().await.unwrap().model().await.unwrap();
    assert_eq!(application.id.get(), user.id.get());

    let client = http.interaction(application.id);
    let commands = ["ping", "shards", "stats"].map(command);
    let set = client.set_global_commands(&commands).await.unwrap().models().await.unwrap();
    let names = |commands: &[Command]| {
        commands.iter().map(|command| command.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&set), ["ping", "shards", "stats"]);
    assert!(set.iter().all(|command| command.application_id == Some(application.id)));
    let read = client.global_commands().await.unwrap().models().await.unwrap();
    assert_eq!(read, set);

    let books = sim.control.books();
    assert_eq!(books.registrations, 1);
    let registered = books.registered.unwrap();
    assert_eq!(registered.commands, ["ping", "shards", "stats"]);
    assert_eq!(registered.application_id, application.id.get());
    assert!(!registered.user_agent.is_empty());

    let other = http.interaction(Id::new(9)).set_global_commands(&commands).await.unwrap_err();
    assert_eq!(refusal(&other), (404, 10_002));
    let twice = [command("ping"), command("ping")];
    let twice = client.set_global_commands(&twice).await.unwrap_err();
    assert_eq!(refusal(&twice), (400, 50_035));
    assert_eq!(sim.control.books().registrations, 1);
}

#[tokio::test]
async fn without_the_right_token_nothing_is_told() {
    let sim = Sim::start(Config { token: Some(TOKEN.into()), ..Config::default() }).await;
    let error = http(&sim, "another").gateway().authed().await.unwrap_err();
    assert_eq!(refusal(&error), (401, 0));
    let bearer = http(&sim, &format!("Bearer {TOKEN}"));
    assert_eq!(refusal(&bearer.current_user().await.unwrap_err()), (401, 0));
    let none = reqwest::get(format!("http://{}/api/v10/gateway/bot", sim.host)).await.unwrap();
    assert_eq!(none.status(), 401);
    assert!(http(&sim, TOKEN).gateway().authed().await.is_ok());
}

#[tokio::test]
async fn bad_requests_are_refused_in_discords_words() {
    let sim = Sim::start(Config::default()).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}/api/v10{path}", sim.host);
    let answer = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let json: serde_json::Value = answer.json().await.unwrap();
        (status, json["code"].as_u64().unwrap())
    };
    let callback = url("/interactions/5/token/callback");
    let bad_json = client.post(&callback).body("{");
    assert_eq!(answer(bad_json).await, (400, 50_035));
    let bad_kind = client.post(&callback).body(r#"{"type": 99}"#);
    assert_eq!(answer(bad_kind).await, (400, 50_035));
    assert_eq!(answer(client.get(url("/guilds/1"))).await, (404, 0));
    assert_eq!(answer(client.delete(url("/gateway"))).await, (405, 0));
    let text = client.get(url("/gateway")).send().await.unwrap();
    assert_eq!(text.status(), 200);
    // Not a number where an id belongs: refused, and no panic.
    let no_id = client.post(url("/interactions/x/token/callback")).body(r#"{"type": 4}"#);
    assert_eq!(no_id.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn faults_strike_the_requests_they_are_laid_for() {
    let sim = Sim::start(Config::default()).await;
    let http = http(&sim, TOKEN);
    let retry_after = Duration::from_millis(10);
    let limited = Fault::RateLimited { retry_after, scope: RateLimitScope::User };
    sim.control.inject(Route::GatewayBot, limited, 2);
    sim.control.inject(Route::GatewayBot, Fault::Status(500), 1);
    // Twilight repeats what is rate limited, and gives up at the 500.
    let error = http.gateway().authed().await.unwrap_err();
    assert_eq!(refusal(&error), (500, 0));
    assert!(http.gateway().authed().await.is_ok());
    let requests = sim.control.books().requests;
    let of = |status| requests[&(Route::GatewayBot, status)];
    assert_eq!((of(429), of(500), of(200)), (2, 1, 1));

    let delay = Duration::from_millis(50);
    sim.control.inject(Route::CurrentUser, Fault::Delay(delay), 1);
    let asked = Instant::now();
    assert!(http.current_user().await.is_ok());
    assert!(asked.elapsed() >= delay);

    sim.control.inject(Route::CurrentUser, Fault::Status(503), 5);
    sim.control.clear_faults();
    assert!(http.current_user().await.is_ok());
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    let sim = Sim::start(Config::default()).await;
    let retry_after = Duration::from_millis(1_500);
    sim.control.inject(
        Route::Gateway,
        Fault::RateLimited { retry_after, scope: RateLimitScope::Global },
        1,
    );
    let answer = reqwest::get(format!("http://{}/api/v10/gateway", sim.host)).await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["retry-after"], "2");
    assert_eq!(answer.headers()["x-ratelimit-scope"], "global");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!((&body["retry_after"], &body["global"]), (&1.5.into(), &true.into()));
}
