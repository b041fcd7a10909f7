//! The database is far away: what is stored in batches arrives nevertheless.

use std::{net::Ipv4Addr, time::Duration};

use shardmeter_api::store::{HistoryQuery, Position, Store, hour_of};
use shardmeter_process::{
    Secret,
    testing::{is, until},
};
use shardmeter_proto::events::{Event, GuildId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Database, Postgres},
    server::Server,
    store,
};

/// Each way.
const DISTANCE: Duration = Duration::from_millis(20);

/// The URL under which a database is as if it were far away, as long as the test runs.
async fn far(postgres: &Postgres) -> Secret {
    let near = postgres.address();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(near).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server));
            tokio::spawn(carry(from_server, to_client));
        }
    });
    Postgres::url_at(port).into()
}

/// Takes everything there, late.
async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        sleep(DISTANCE).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}

async fn start() -> (Database, Secret) {
    let postgres = Postgres::start().await;
    let far = far(&postgres).await;
    (Database::Postgres(postgres), far)
}

#[tokio::test]
async fn incidents_are_stored_far_away() {
    let (database, far) = start().await;
    let (store, _task) = Store::open(&far, CancellationToken::new()).unwrap();
    store::wait_until_up(&store).await;
    let incidents: Vec<_> = (1..=500).map(|revision| store::incident(revision, Some(3))).collect();
    let position = Position { epoch: "e".into(), revision: 500 };
    store::record_incidents(&store, &incidents, &position).await;
    let near = store::open(&database).await;
    assert_eq!(near.position().await.unwrap(), position);
    let all = HistoryQuery { shard_id: 3, before: None, since: None, limit: 1000 };
    let stored = near.history(all).await.unwrap();
    let stored: Vec<_> = stored.into_iter().rev().map(|recorded| recorded.incident).collect();
    assert_eq!(stored, incidents);
}

#[tokio::test]
async fn what_was_heard_is_stored_far_away() {
    const EACH: u64 = 2_500;
    let (database, far) = start().await;
    let server = Server::start_on(far).await;
    server.wait_until_ready().await;
    // The server records: it was there first.
    let near = store::open(&database).await;
    let since = hour_of(std::time::SystemTime::now());
    for i in 1..=EACH {
        let guild_id = GuildId::new(i).unwrap();
        server.events.publish(Event::GuildJoined { shard_id: 0, guild_id });
        let command_name = format!("c{i}").into();
        let executed = Event::CommandExecuted { shard_id: 0, command_name, guild_id: None };
        server.events.publish(executed);
    }
    until("what was heard is stored", async || {
        let counts = near.top_commands(since, 10_000).await.unwrap();
        assert!(counts.iter().all(|command| command.count == 1), "{counts:?}");
        near.guild(EACH).await.unwrap().ok_or("the last guild is not")?;
        is(counts.len() as u64, EACH)
    })
    .await;
    for i in 1..=EACH {
        assert!(near.guild(i).await.unwrap().is_some(), "guild {i}");
    }
    server.stop().await;
}
