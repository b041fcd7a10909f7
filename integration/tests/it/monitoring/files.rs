//! The files as Prometheus' and Alertmanager's own programs judge them, also with what is turned off in them turned on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use tokio::process::Command;

use super::{files_of, folder, said};
use crate::tools;

/// The text once for each block that is turned off in it, with that one turned on: lines that begin with `#` and no blank, and
/// comments right after.
fn turned_on(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let comment = |line: &str| line.trim_start().starts_with('#');
    let begins = |line: &str| {
        line.trim_start()
            .strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
    };
    let prose = |line: &str| line.trim() == "#";
    let starts = (0..lines.len()).filter(|at| {
        begins(lines[*at]) && (*at == 0 || !(comment(lines[at - 1]) && begins(lines[at - 1])))
    });
    let variant = |start: usize| {
        let length = lines[start..].iter().take_while(|l| comment(l) && !prose(l)).count();
        let turned = lines.iter().enumerate().map(|(at, line)| {
            if (start..start + length).contains(&at) {
                line.replacen('#', "", 1)
            } else {
                (*line).to_owned()
            }
        });
        turned.collect::<Vec<_>>().join("\n") + "\n"
    };
    starts.map(variant).collect()
}

#[tokio::test]
async fn promtool_takes_the_configuration_and_whatever_is_turned_on_in_it() {
    let path = folder().join("prometheus/prometheus.yml");
    said(Command::new("promtool").args(["check", "config"]).arg(&path)).await;
    said(
        Command::new("promtool")
            .args(["check", "rules"])
            .args(files_of("prometheus/rules", ".yml")),
    )
    .await;
    let variants = turned_on(&fs::read_to_string(&path).unwrap());
    assert_eq!(variants.len(), 7, "{variants:#?}");
    let scratch = tempfile::tempdir().unwrap();
    for (number, variant) in variants.iter().enumerate() {
        let file = scratch.path().join(format!("{number}.yml"));
        fs::write(&file, variant).unwrap();
        // What it names, as tokens, is not on this machine.
        said(Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(file)).await;
    }
}

#[tokio::test]
async fn promtool_sees_every_alert_fire_and_not_fire() {
    said(
        Command::new("promtool").args(["test", "rules"]).args(files_of("prometheus/tests", ".yml")),
    )
    .await;
    let read =
        |folder| files_of(folder, ".yml").into_iter().map(|path| fs::read_to_string(path).unwrap());
    let mut alerts = BTreeSet::new();
    for rules in read("prometheus/rules") {
        alerts.extend(
            rules.lines().filter_map(|l| l.strip_prefix("      - alert: ")).map(str::to_owned),
        );
    }
    let mut tested: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for tests in read("prometheus/tests") {
        for check in tests.split("alertname: ").skip(1) {
            let (name, rest) = check.split_at(check.find([',', '\n']).unwrap());
            let fires = !rest.starts_with(", exp_alerts: []");
            assert!(!fires || rest.starts_with("\n        exp_alerts:\n"), "{name}: {rest}");
            tested.entry(name.to_owned()).or_default().insert(fires);
        }
    }
    assert!(alerts.len() > 25);
    for alert in &alerts {
        let seen = tested.remove(alert).unwrap_or_default();
        assert!(seen.contains(&true), "no test shows {alert} firing");
        assert!(seen.contains(&false) || alert == "Watchdog", "no test shows {alert} not firing");
    }
    assert!(tested.is_empty(), "tests of alerts that are not: {tested:?}");
}

#[test]
fn the_runbook_has_a_section_for_every_alert() {
    let runbook = fs::read_to_string(folder().join("RUNBOOK.md")).unwrap();
    let sections: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    for path in files_of("prometheus/rules", ".yml") {
        let rules = fs::read_to_string(path).unwrap();
        for alert in rules.split("      - alert: ").skip(1) {
            let name = alert.lines().next().unwrap();
            assert!(sections.contains(name), "RUNBOOK.md says nothing of {name}");
            let link = format!("runbook: monitoring/RUNBOOK.md#{}\n", name.to_lowercase());
            assert!(alert.contains(&link), "{name} has another's runbook");
            for needed in ["severity: ", "component: ", "summary: ", "description: "] {
                assert!(alert.contains(needed), "{name} has no {needed}");
            }
        }
    }
}

/// All YAML there is, as a YAML library reads it; Grafana's files have no program of their own that would judge them here.
#[tokio::test]
async fn every_file_is_yaml_also_with_what_is_turned_off() {
    let scratch = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for folder in [
        "prometheus",
        "prometheus/rules",
        "prometheus/tests",
        "alertmanager",
        "grafana/provisioning/datasources",
        "grafana/provisioning/dashboards",
    ] {
        for path in files_of(folder, ".yml") {
            let text = fs::read_to_string(path).unwrap();
            let variants = turned_on(&text);
            files.extend(variants.into_iter().chain([text]).enumerate().map(|(number, text)| {
                let path = scratch.path().join(format!("{}-{number}", folder.replace('/', "-")));
                fs::write(&path, text).unwrap();
                path
            }));
        }
    }
    let load = "import sys, yaml\nfor path in sys.argv[1:]: assert isinstance(yaml.safe_load(open(path)), dict), path";
    said(Command::new(tools::python("python")).args(["-c", load]).args(files)).await;
}

#[test]
fn what_is_turned_off_is_found() {
    let text = "a:\n  # prose\n  #b:\n  #  c: 1\n  #\n  # prose\n  #d: 2\ne: 3\n";
    let on = turned_on(text);
    assert_eq!(on.len(), 2);
    assert!(on[0].contains("\n  b:\n    c: 1\n") && on[1].contains("\n  d: 2\ne: 3\n"), "{on:?}");
}

/// Debian's Alertmanager, older than 0.28, knows only URLs, not files with URLs.
pub(super) fn for_any_alertmanager(text: &str, url: &str) -> String {
    let line = |line: &str| match line.split_once("url_file: ") {
        Some((before, _)) => format!("{before}url: {url}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Alertmanager's configuration with all that is turned off in it turned on, in a folder with its templates.
#[tokio::test]
async fn amtool_takes_the_configuration_and_routes_as_it_should() {
    let text = fs::read_to_string(folder().join("alertmanager/alertmanager.yml")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let templates = scratch.path().join("templates");
    fs::create_dir(&templates).unwrap();
    for template in files_of("alertmanager/templates", ".tmpl") {
        fs::copy(&template, templates.join(template.file_name().unwrap())).unwrap();
    }
    let variants = turned_on(&text);
    assert_eq!(variants.len(), 1);
    let file = scratch.path().join("alertmanager.yml");
    for variant in variants.iter().chain([&text]) {
        fs::write(&file, for_any_alertmanager(variant, "http://127.0.0.1/")).unwrap();
        said(Command::new("amtool").arg("check-config").arg(&file)).await;
    }
    for (alert, receiver) in [
        ("alertname=Watchdog severity=none", "dead-mans-switch"),
        ("alertname=ManagerDown severity=critical fleet=main", "discord-critical"),
        ("alertname=ShardDown severity=warning fleet=main", "discord"),
        ("alertname=SomebodyElses", "discord"),
    ] {
        let mut amtool = Command::new("amtool");
        let config = format!("--config.file={}", file.display());
        amtool.args(["config", "routes", "test", &config]);
        said(amtool.arg(format!("--verify.receivers={receiver}")).args(alert.split(' '))).await;
    }
}
