//! Parts of a page: what was asked for and nothing else, and valid all the same.

use super::*;

/// The names that a part of the golden page has after `# TYPE`.
fn types(format: Format, names: &[&str], shards: &[u32]) -> Vec<String> {
    let filter = Filter {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        shards: shards.iter().copied().collect(),
    };
    let page = render_some(&golden_registry(), &own(), at(40), format, &filter).to_vec();
    let families = page::read(format, &page);
    page::check(format, &families).unwrap();
    families.into_iter().map(|family| family.name).collect()
}

#[test]
fn families_are_found_by_all_their_names() {
    let text = Format::TEXT;
    assert_eq!(types(text, &["guild_count"], &[]), ["guild_count"]);
    for name in ["ack_seconds", "ack_seconds_bucket", "ack_seconds_sum", "ack_seconds_count"] {
        assert_eq!(types(text, &[name], &[]), ["ack_seconds"], "{name}");
    }
    assert_eq!(types(text, &["shard_up", "guild_count"], &[]), ["guild_count", "shard_up"]);
    let own = "shardmeter_manager_frames_total";
    assert_eq!(types(text, &[own], &[]), [own]);
    assert_eq!(types(Format::OPENMETRICS, &["cpu_seconds"], &[]), ["cpu_seconds"]);
    // As it is, or as it stands on the page.
    let dots = Format::new(Syntax::Text, Escaping::Dots);
    for name in ["bot.commands_total", "bot_dot_commands__total"] {
        assert_eq!(types(dots, &[name], &[]), ["bot_dot_commands__total"], "{name}");
    }
    assert_eq!(types(text, &["bot_commands_total"], &[]), ["bot_commands_total"]);
    assert!(types(dots, &["bot_commands_total"], &[]).is_empty());
    for none in ["", "guild", "guild_count_sum", "ack_seconds_total"] {
        assert!(types(text, &[none], &[]).is_empty(), "{none}");
        assert!(types(Format::OPENMETRICS, &[none], &[]).is_empty(), "{none}");
    }
}

#[test]
fn shards_leave_the_managers_own_out() {
    for format in page::formats() {
        let whole = render(&golden_registry(), &own(), at(40), format).to_vec();
        let filter = Filter { shards: [2, 9].into(), ..Filter::default() };
        let part = render_some(&golden_registry(), &own(), at(40), format, &filter).to_vec();
        let samples = |page: &[u8]| {
            let families = page::read(format, page).into_iter();
            families.flat_map(|family| family.samples).collect::<Vec<_>>()
        };
        let label = format.escaping.label_name("shard_id").into_owned();
        let mut expected = samples(&whole);
        expected.retain(|sample| sample.labels.contains(&(label.clone(), "2".to_owned())));
        assert!(!expected.is_empty());
        assert_eq!(samples(&part), expected);
    }
    assert!(types(Format::TEXT, &[], &[9]).is_empty());
    assert_eq!(types(Format::TEXT, &["shard_up", "guild_count"], &[2]), ["shard_up"]);
}
