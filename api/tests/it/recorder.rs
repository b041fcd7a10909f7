//! What the bus's events leave in the database.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use serde_json::{Value, json};
use shardmeter_process::{
    Secret,
    testing::{is, soon, until},
};
use shardmeter_proto::events::{EVENTS_CHANNEL, Event, GuildId};
use sqlx::Connection as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use crate::{
    backend::{Backend, Database, Postgres, on_both},
    server::Server,
};

on_both!(events_are_added_up_and_stored, what_was_heard_last_is_stored_at_the_end);

fn executed(command_name: &'static str) -> Event {
    Event::CommandExecuted {
        shard_id: 0,
        command_name: Cow::Borrowed(command_name),
        guild_id: None,
    }
}

async fn top(server: &Server) -> Value {
    server.json("/api/v1/commands/top").await["commands"].take()
}

/// Waits for the counts to be these, and no more.
async fn wait_for_top(server: &Server, expected: &Value) {
    until("what is counted", async || is(top(server).await, expected.clone())).await;
}

async fn events_are_added_up_and_stored(backend: Backend) {
    let server = Server::start(backend).await;
    for _ in 0..500 {
        server.events.publish(executed("ping"));
    }
    server.events.publish(executed("stats"));
    let expected = json!([
        { "command_name": "ping", "count": 500 }, { "command_name": "stats", "count": 1 },
    ]);
    wait_for_top(&server, &expected).await;
    if let Some(redis) = &server.redis {
        // As a bot tells it.
        let message = serde_json::to_string(&executed("ping")).unwrap();
        until("the api listens", async || {
            is(redis.ask::<u64>(&["PUBLISH", EVENTS_CHANNEL, &message]).await, 1)
        })
        .await;
    } else {
        server.events.publish(executed("ping"));
    }
    let expected = json!([
        { "command_name": "ping", "count": 501 }, { "command_name": "stats", "count": 1 },
    ]);
    wait_for_top(&server, &expected).await;
    let limited = server.json("/api/v1/commands/top?window=1h&limit=1").await;
    assert_eq!(limited["window"], "1h");
    assert_eq!(limited["commands"], json!([{ "command_name": "ping", "count": 501 }]));
    server.stop().await;
}

async fn what_was_heard_last_is_stored_at_the_end(backend: Backend) {
    let mut server = Server::start(backend).await;
    let database = server.database.take().unwrap();
    let guild_id = GuildId::new(7).unwrap();
    server.events.publish(Event::GuildJoined { shard_id: 0, guild_id });
    server.events.publish(executed("ping"));
    server.stop().await;
    let store = crate::store::open(&database).await;
    assert!(store.guild(7).await.unwrap().unwrap().joined_at.is_some());
    let since = std::time::SystemTime::UNIX_EPOCH;
    assert_eq!(store.top_commands(since, 1).await.unwrap()[0].count, 1);
}

#[tokio::test]
async fn what_is_heard_while_the_database_is_away_is_stored_when_it_is_back() {
    let mut server = Server::start(Backend::Postgres).await;
    let Some(Database::Postgres(mut postgres)) = server.database.take() else { unreachable!() };
    server.events.publish(executed("ping"));
    wait_for_top(&server, &json!([{ "command_name": "ping", "count": 1 }])).await;
    postgres.stop().await;
    for _ in 0..1000 {
        server.events.publish(executed("ping"));
    }
    server.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    for _ in 0..1000 {
        server.events.publish(executed("ping"));
    }
    postgres.resume().await;
    server.wait_until_ready().await;
    wait_for_top(&server, &json!([{ "command_name": "ping", "count": 2001 }])).await;
    server.stop().await;
}

/// Both hear everything, as over Redis; and when the one that records is gone, the other does.
#[tokio::test]
async fn of_two_apis_one_records() {
    let mut first = Server::start(Backend::Postgres).await;
    let database = first.database.take().unwrap();
    let second = Server::start_on(database.url()).await;
    second.wait_until_ready().await;
    for server in [&first, &second] {
        for _ in 0..10 {
            server.events.publish(executed("ping"));
        }
    }
    let counted = json!([{ "command_name": "ping", "count": 10 }]);
    wait_for_top(&first, &counted).await;
    // Who ends stores what it still has to.
    second.stop().await;
    assert_eq!(top(&first).await, counted);

    let third = Server::start_on(database.url()).await;
    third.wait_until_ready().await;
    first.stop().await;
    until("the other records", async || {
        third.events.publish(executed("ping"));
        let top = top(&third).await;
        if top == counted { Err(top) } else { Ok(()) }
    })
    .await;
    third.stop().await;
}

/// Each hears so many pings, some at a time, for longer than what is heard waits to be stored.
async fn both_hear(servers: [&Server; 2], pings: u64) {
    for heard in 0..pings {
        for server in servers {
            server.events.publish(executed("ping"));
        }
        if heard % 10 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What comes after `pings` is counted, and nothing of before is missing or there twice.
async fn goes_on_after(server: &Server, pings: u64) {
    server.wait_until_ready().await;
    server.events.publish(executed("stats"));
    let expected = json!([
        { "command_name": "ping", "count": pings }, { "command_name": "stats", "count": 1 },
    ]);
    let is_counted = async || {
        let top = top(server).await;
        if top[1].is_null() { Err(top) } else { Ok(top) }
    };
    assert_eq!(until("it records", is_counted).await, expected);
}

/// It waits for the file, and knows nothing of what the other does.
#[tokio::test]
async fn who_takes_over_an_sqlite_file_goes_on_after_what_the_other_stored() {
    let mut first = Server::start(Backend::Sqlite).await;
    let database = first.database.take().unwrap();
    let second = Server::start_on(database.url()).await;
    second.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    both_hear([&first, &second], 1000).await;
    first.stop().await;
    goes_on_after(&second, 1000).await;
    second.stop().await;
}

/// So it does not know what the other does.
#[tokio::test]
async fn who_was_cut_off_goes_on_after_what_the_other_stored() {
    let first = Server::start(Backend::Postgres).await;
    let url = first.database.as_ref().unwrap().url();
    let mut admin = sqlx::AnyConnection::connect(url.expose()).await.unwrap();
    let mut run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut admin).await.unwrap();
    };
    run("CREATE ROLE another SUPERUSER LOGIN").await;
    let second = Server::start_on(url.expose().replace("shardmeter@", "another@").into()).await;
    second.wait_until_ready().await;
    run("ALTER ROLE another NOLOGIN").await;
    run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'another'").await;
    second.wait_for_readiness(reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    both_hear([&first, &second], 1000).await;
    wait_for_top(&first, &json!([{ "command_name": "ping", "count": 1000 }])).await;
    run("ALTER ROLE another LOGIN").await;
    // The database outlives the api that it was started with.
    let mut first = first;
    let _database = first.database.take().unwrap();
    first.stop().await;
    goes_on_after(&second, 1000).await;
    second.stop().await;
}

/// Of what is heard between the last batch of one and the first of the other nothing is missing.
#[tokio::test]
async fn who_stood_by_has_what_the_other_did_not_store() {
    let mut first = Server::start(Backend::Postgres).await;
    let database = first.database.take().unwrap();
    let second = Server::start_on(database.url()).await;
    second.wait_until_ready().await;
    both_hear([&first, &second], 100).await;
    first.stop().await;
    // Nobody records yet. What comes at once could be the same events, heard later.
    sleep(Duration::from_millis(300)).await;
    for _ in 0..10 {
        second.events.publish(executed("ping"));
    }
    goes_on_after(&second, 110).await;
    second.stop().await;
}

/// Cuts a connection before a commit, or between a commit and its answer, each time it is armed.
#[derive(Clone)]
struct Cuts(Arc<watch::Sender<Option<Cut>>>);

enum Cut {
    Before,
    After,
}

impl Cuts {
    /// The URL of a PostgreSQL behind it.
    async fn before(postgres: &Postgres) -> (Self, Secret) {
        let cuts = Self(Arc::new(watch::Sender::new(None)));
        let (near, listener) =
            (postgres.address(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        let cutting = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(near).await else { continue };
                let cuts = cutting.clone();
                tokio::spawn(async move { cuts.carry(client, server).await });
            }
        });
        (cuts, Postgres::url_at(port).into())
    }

    async fn carry(self, mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
        let (mut asked, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let asked = &asked[..read?];
                    if asked.is_empty() {
                        return Ok(());
                    }
                    let commits = asked.windows(6).any(|word| word == b"COMMIT");
                    let cut = if commits { self.take() } else { None };
                    if let Some(Cut::Before) = cut {
                        return Ok(());
                    }
                    server.write_all(asked).await?;
                    if cut.is_some() {
                        // Done, and never told.
                        server.readable().await?;
                        return Ok(());
                    }
                }
                read = server.read(&mut answer) => match read? {
                    0 => return Ok(()),
                    read => client.write_all(&answer[..read]).await?,
                }
            }
        }
    }

    fn arm(&self, cut: Cut) {
        self.0.send_replace(Some(cut));
    }

    fn take(&self) -> Option<Cut> {
        let mut taken = None;
        self.0.send_if_modified(|armed| {
            taken = armed.take();
            taken.is_some()
        });
        taken
    }

    async fn cut(&self) {
        soon("a commit is cut", self.0.subscribe().wait_for(Option::is_none)).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_commit_that_was_cut_did_or_did_not_store_is_counted_once() {
    let postgres = Postgres::start().await;
    let (cuts, url) = Cuts::before(&postgres).await;
    let server = Server::start_on(url).await;
    server.wait_until_ready().await;
    for cut in [Cut::After, Cut::Before, Cut::After] {
        cuts.arm(cut);
        for _ in 0..10 {
            server.events.publish(executed("ping"));
        }
        cuts.cut().await;
    }
    // Stored after all that was tried again.
    server.events.publish(executed("stats"));
    let expected = json!([
        { "command_name": "ping", "count": 30 }, { "command_name": "stats", "count": 1 },
    ]);
    let is_counted = async || {
        let top = top(&server).await;
        if top[1].is_null() { Err(top) } else { Ok(top) }
    };
    assert_eq!(until("all is stored", is_counted).await, expected);
    server.stop().await;
}
