use prometheus::Registry;

use super::*;

fn guilds() -> Guilds {
    Guilds::new(GuildMetrics::register(&Registry::new()).unwrap())
}

fn ready(ids: &[u64]) -> Ready {
    let guilds: Vec<_> = ids
        .iter()
        .map(|id| serde_json::json!({"id": id.to_string(), "unavailable": true}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "application": {"id": "1", "flags": 0},
        "guilds": guilds,
        "resume_gateway_url": "ws://127.0.0.1:1",
        "session_id": "s",
        "user": {
            "avatar": null, "bot": true, "discriminator": "0", "email": null, "id": "1",
            "mfa_enabled": false, "username": "bot", "verified": true
        },
        "v": 10,
    }))
    .unwrap()
}

fn create(id: u64, members: u64) -> GuildCreate {
    GuildCreate::Available(described(Id::new(id), Some(members)).unwrap())
}

fn delete(id: u64, unavailable: Option<bool>) -> GuildDelete {
    GuildDelete { id: Id::new(id), unavailable }
}

fn counts(guilds: &Guilds) -> (i64, i64, i64) {
    let metrics = &guilds.metrics;
    (metrics.guild_count.get(), metrics.user_count.get(), metrics.unavailable_guilds.get())
}

#[test]
fn guilds_of_ready_are_not_joined_and_later_ones_are() {
    let mut guilds = guilds();
    guilds.ready(&ready(&[1, 2]));
    assert_eq!(counts(&guilds), (0, 0, 2));
    assert!(!guilds.created(&create(1, 10)));
    assert!(!guilds.created(&create(2, 5)));
    assert_eq!(counts(&guilds), (2, 15, 0));
    assert!(guilds.created(&create(3, 7)));
    assert_eq!(counts(&guilds), (3, 22, 0));
    assert!(!guilds.created(&create(3, 8)), "described again, not joined again");
    assert_eq!(counts(&guilds), (3, 23, 0));
}

#[test]
fn an_outage_is_no_farewell() {
    let mut guilds = guilds();
    guilds.created(&create(1, 10));
    guilds.created(&create(2, 5));
    assert!(!guilds.deleted(&delete(1, Some(true))));
    assert_eq!(counts(&guilds), (1, 5, 1));
    assert!(guilds.knows(Id::new(1)));
    assert!(!guilds.created(&create(1, 11)));
    assert_eq!(counts(&guilds), (2, 16, 0));
    assert!(guilds.deleted(&delete(1, None)));
    assert_eq!(counts(&guilds), (1, 5, 0));
}

#[test]
fn a_guild_left_during_its_outage_is_gone() {
    let mut guilds = guilds();
    guilds.created(&create(1, 10));
    guilds.deleted(&delete(1, Some(true)));
    assert!(guilds.deleted(&delete(1, Some(false))));
    assert_eq!(counts(&guilds), (0, 0, 0));
    assert!(!guilds.knows(Id::new(1)));
}

#[test]
fn a_new_session_forgets_guilds_left_meanwhile() {
    let mut guilds = guilds();
    guilds.created(&create(1, 10));
    guilds.ready(&ready(&[2]));
    assert_eq!(counts(&guilds), (0, 0, 1));
    assert!(!guilds.knows(Id::new(1)));
}

#[test]
fn saved_guilds_come_back() {
    let mut before = guilds();
    before.ready(&ready(&[1, 2, 3]));
    before.created(&create(1, 10));
    before.created(&create(2, 5));
    before.deleted(&delete(2, Some(true)));
    let mut after = guilds();
    let saved = serde_json::to_string(&before.save()).unwrap();
    after.restore(&serde_json::from_str(&saved).unwrap());
    assert_eq!(counts(&after), counts(&before));
    assert_eq!(counts(&after), (1, 10, 2));
    assert!(!after.created(&create(2, 6)), "known before the restart");
    assert_eq!(counts(&after), (2, 16, 1));
}
