use std::time::Duration;

use shardmeter_proto::events::Event as Told;
use tokio::time::{Instant, advance, timeout};

use super::*;

fn guild(id: u64) -> GuildId {
    GuildId::new(id).unwrap()
}

/// The n-th event, in one of ten guilds.
fn nth(n: u64) -> Event {
    Event::Platform(Told::GuildLeft { shard_id: n as u32, guild_id: guild(n % 10 + 1) })
}

/// Which events these are.
fn numbers(passage: &Passage) -> Vec<u64> {
    let number = |event: &Event| match event {
        Event::Platform(Told::GuildLeft { shard_id, .. }) => u64::from(*shard_id),
        other => panic!("{other:?}"),
    };
    let numbers: Vec<_> = passage.events().map(number).collect();
    // Its text says the same.
    let text = String::from_utf8(passage.text().to_vec()).unwrap();
    let said = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let said = said.map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap());
    assert!(said.map(|event| event["shard_id"].as_u64().unwrap()).eq(numbers.iter().copied()));
    assert_eq!(text.matches("\n\n").count(), numbers.len());
    numbers
}

fn bus() -> (Events, EventTasks, CancellationToken) {
    let stop = CancellationToken::new();
    let (events, tasks) = Events::within_process(stop.clone());
    (events, tasks, stop)
}

/// What a listener hears until there is nothing more for now.
async fn hear(subscription: &mut Subscription) -> (bool, Vec<u64>) {
    let (mut gap, mut heard) = (false, Vec::new());
    while let Ok(next) = timeout(TOGETHER * 3, subscription.next()).await {
        match next.unwrap() {
            Heard::Gap => {
                assert!(heard.is_empty(), "a gap comes first");
                gap = true;
            }
            Heard::Events(passage) => heard.extend(numbers(&passage)),
            Heard::Heartbeat => {}
        }
    }
    (gap, heard)
}

fn id(events: &Events, sequence: u64) -> Last {
    Last::read(&EventId::before(events.0.epoch, sequence + 1).to_string())
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_goes_on_where_it_was_wherever_that_is() {
    let (events, _tasks, _stop) = bus();
    let mut from_the_start = events.subscribe(None, None);
    let total = 500_u64;
    for n in 1..=total {
        events.publish(nth(n));
        // Batches of one, of some and of many.
        if n % 7 == 0 || n < 5 {
            advance(TOGETHER * 2).await;
        }
    }
    assert_eq!(hear(&mut from_the_start).await, (false, (1..=total).collect()));
    for had in 0..=total {
        let mut back = events.subscribe(None, Some(id(&events, had)));
        assert_eq!(back.last().to_string(), format!("{:08x}-{had}", events.0.epoch));
        assert_eq!(hear(&mut back).await, (false, (had + 1..=total).collect()), "{had}");
        let mut one = events.subscribe(Some(guild(3)), Some(id(&events, had)));
        let expected = (had + 1..=total).filter(|n| n % 10 == 2).collect();
        assert_eq!(hear(&mut one).await, (false, expected), "{had}");
        assert_eq!(one.last(), back.last(), "it keeps up, whether it was told something or not");
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_says_nothing_is_a_gap_and_then_only_news() {
    let (events, _tasks, _stop) = bus();
    events.publish(nth(1));
    let foreign = format!("{:08x}-1", events.0.epoch.wrapping_add(1));
    let future = format!("{:08x}-2", events.0.epoch);
    let huge = format!("{:08x}-{}", events.0.epoch, u64::MAX);
    for text in [foreign.as_str(), &future, &huge, "", "x", "1", "-", "00000000-"] {
        let mut back = events.subscribe(None, Some(Last::read(text)));
        assert_eq!(hear(&mut back).await, (true, Vec::new()), "{text}");
    }
    let mut foreign = events.subscribe(None, Some(Last::read(&foreign)));
    let mut new = events.subscribe(None, None);
    events.publish(nth(2));
    assert_eq!(hear(&mut foreign).await, (true, vec![2]));
    assert_eq!(hear(&mut new).await, (false, vec![2]), "not what was told before");
}

#[tokio::test(start_paused = true)]
async fn who_falls_behind_is_cut_and_gets_a_gap_and_what_is_left() {
    let (events, _tasks, _stop) = bus();
    let mut slow = events.subscribe(None, None);
    let mut of_a_guild = events.subscribe(Some(guild(1)), None);
    let mut fast = events.subscribe(None, None);
    let total = 100_000_u64;
    let mut heard = Vec::new();
    for n in 1..=total {
        events.publish(nth(n));
        if n % 1_000 == 0 {
            heard.extend(hear(&mut fast).await.1);
        }
    }
    assert!(heard.into_iter().eq(1..=total), "the others hear all");
    assert_eq!(slow.next().await.unwrap_err(), Ended::Behind);
    assert_eq!(of_a_guild.next().await.unwrap_err(), Ended::Behind);
    let mut back = events.subscribe(None, Some(id(&events, 0)));
    let (gap, left) = hear(&mut back).await;
    assert!(gap && left.len() > 30_000, "{}", left.len());
    assert!(left.iter().copied().eq(total + 1 - left.len() as u64..=total));
    // The oldest that is there needs no gap, and the one before it does.
    let oldest = left[0];
    let (gap, again) = hear(&mut events.subscribe(None, Some(id(&events, oldest - 1)))).await;
    assert!(!gap && again == left);
    let (gap, again) = hear(&mut events.subscribe(None, Some(id(&events, oldest - 2)))).await;
    assert!(gap && again == left);
    let ring = events.0.ring.lock();
    assert!(ring.held() <= (32_768, 16 << 20), "{:?}", ring.held());
}

#[tokio::test(start_paused = true)]
async fn few_long_events_fill_the_ring_as_well() {
    let (events, _tasks, _stop) = bus();
    let mut slow = events.subscribe(None, None);
    let long = events::GuildSettings {
        guild_id: guild(1),
        revision: 1,
        disabled_commands: vec!["x".repeat(10_000)],
        command_prefix: None,
    };
    for _ in 0..2_000 {
        events.publish(Told::GuildSettingsUpdated(long.clone()));
    }
    assert_eq!(slow.next().await.unwrap_err(), Ended::Behind);
    let (held, bytes) = events.0.ring.lock().held();
    assert!((1_500..2_000).contains(&held) && bytes <= 16 << 20, "{held}, {bytes}");
}

#[tokio::test(start_paused = true)]
async fn events_are_told_at_once_and_many_together() {
    let (events, _tasks, _stop) = bus();
    let mut listener = events.subscribe(None, None);
    let began = Instant::now();
    events.publish(nth(1));
    assert!(matches!(listener.next().await, Ok(Heard::Events(_))));
    assert_eq!(began.elapsed(), Duration::ZERO, "the first after a pause");
    let mut batches = 0;
    for n in 2..=1_000 {
        events.publish(nth(n));
        advance(Duration::from_millis(1)).await;
        while let Ok(next) = timeout(Duration::ZERO, listener.next()).await {
            assert!(matches!(next, Ok(Heard::Events(_))));
            batches += 1;
        }
    }
    assert!((8..=12).contains(&batches), "{batches}");
}

#[tokio::test(start_paused = true)]
async fn silence_has_a_heartbeat_and_keeps_up() {
    let (events, _tasks, stop) = bus();
    let mut all = events.subscribe(None, None);
    let mut quiet = events.subscribe(Some(guild(99)), None);
    let began = Instant::now();
    for n in 1..=3 {
        assert!(matches!(all.next().await, Ok(Heard::Heartbeat)));
        assert_eq!(began.elapsed(), HEARTBEAT * n);
        assert!(matches!(quiet.next().await, Ok(Heard::Heartbeat)));
    }
    events.publish(nth(1));
    assert!(matches!(all.next().await, Ok(Heard::Events(_))));
    assert!(matches!(quiet.next().await, Ok(Heard::Heartbeat)));
    assert_eq!(quiet.last(), all.last(), "its id moves on with what it does not hear");
    assert!(matches!(all.next().await, Ok(Heard::Heartbeat)));
    // The end: all hear what there is, and that there is no more.
    events.publish(nth(2));
    stop.cancel();
    assert!(matches!(all.next().await, Ok(Heard::Events(_))));
    assert_eq!(all.next().await.unwrap_err(), Ended::Closed);
    assert_eq!(quiet.next().await.unwrap_err(), Ended::Closed);
    let mut late = events.subscribe(None, None);
    assert_eq!(late.next().await.unwrap_err(), Ended::Closed);
}

#[test]
fn ids_of_events() {
    let id = EventId::before(0x1a, 8);
    assert_eq!(id.to_string(), "0000001a-7");
    assert_eq!("0000001a-7".parse(), Ok(id));
    for bad in ["", "-", "1a", "1a-", "-7", "1a-x", "1a--7", "1a-+7", "+1a-7", "100000000-1"] {
        assert_eq!(bad.parse::<EventId>(), Err(EventIdError), "{bad:?}");
    }
}
