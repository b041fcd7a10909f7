//! What can be written as a rule.

use super::*;

fn rules(text: &str) -> Result<Rules, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        rules: Rules,
    }
    toml::from_str::<File>(text).map(|file| file.rules).map_err(|error| error.to_string())
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = rules(
        r#"
        [[rules]]
        family = "nodejs_version_info"
        [[rules]]
        family = "nodejs_.*"
        action = "drop"
        [[rules]]
        family = "commands_.*"
        drop_labels = ["guild_id", "a"]
        type = "counter"
        [[rules]]
        family = "commands_.*|guild_count"
        collapse_shards = true
        gauges = "max"
        "#,
    )
    .unwrap();
    let said = |name, kind| rules.treatment(name, kind).to_string();
    assert_eq!(said("nodejs_version_info", MetricType::Gauge), "");
    assert_eq!(said("nodejs_heap", MetricType::Gauge), "dropped");
    assert_eq!(said("my_nodejs_heap", MetricType::Gauge), "");
    assert_eq!(said("commands_total", MetricType::Counter), "without a, guild_id");
    assert_eq!(said("commands_now", MetricType::Gauge), "all shards together; gauges: max");
    assert_eq!(said("commands_seconds", MetricType::Histogram), "all shards together");
    assert_eq!(said("guild_count", MetricType::Untyped), "all shards together; gauges: max");
    assert_eq!(said("guild_count_x", MetricType::Untyped), "");
}

#[test]
fn rules_that_cannot_be_followed_are_refused() {
    for (rule, said) in [
        ("action = \"drop\"", "missing field `family`"),
        ("family = \"(\"", "is no regular expression"),
        ("family = \"a)|(b\"", "is no regular expression"),
        ("family = \"x\"\nlabels = []", "unknown field `labels`"),
        ("family = \"x\"\naction = \"loose\"", "unknown variant `loose`"),
        ("family = \"x\"\naction = \"drop\"\ndrop_labels = [\"a\"]", "action = \"drop\" and"),
        ("family = \"x\"\ndrop_labels = [\"a\"]", "say what becomes of gauges"),
        ("family = \"x\"\ntype = \"gauge\"\ncollapse_shards = true", "say what becomes of gauges"),
        ("family = \"x\"\ngauges = \"sum\"", "no series fall together"),
        ("family = \"x\"\ngauges = \"last\"\ndrop_labels = [\"a\"]", "unknown variant `last`"),
        ("family = \"x\"\ngauges = \"sum\"\ndrop_labels = [\"le\"]", "part of what the type is"),
        ("family = \"x\"\ngauges = \"sum\"\ndrop_labels = [\"shard_id\"]", "collapse_shards"),
        ("family = \"x\"\ngauges = \"sum\"\ndrop_labels = [\"job\"]", "exported_job"),
        ("family = \"x\"\ngauges = \"sum\"\ndrop_labels = [\"\"]", "no label name"),
    ] {
        let error = rules(&format!("[[rules]]\n{rule}\n")).unwrap_err();
        assert!(error.contains(said) && error.contains("line "), "{rule}: {error}");
    }
}

#[test]
fn gauges_become_one() {
    let of = |combine: Combine, values: &[f64]| combine.of(values.iter().copied());
    for (combine, one) in
        [(Combine::Sum, 6.0), (Combine::Min, 1.0), (Combine::Max, 3.0), (Combine::Avg, 2.0)]
    {
        assert_eq!(of(combine, &[2.0, 1.0, 3.0]), Some(one), "{combine:?}");
        assert_eq!(of(combine, &[-2.0]), Some(-2.0), "{combine:?}");
        assert_eq!(of(combine, &[]), None, "{combine:?}");
    }
}
