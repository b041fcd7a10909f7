//! Grafana's dashboards: what they ask of whom, and that they are as Grafana and people who keep them want them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use tokio::process::Command;

use super::{files_of, folder, said};

/// Units of Grafana's that the dashboards use. Another must be looked up first: Grafana shows an unknown one as text.
const UNITS: [&str; 9] =
    ["Bps", "bytes", "dateTimeFromNow", "ops", "percent", "percentunit", "reqps", "s", "short"];

/// What Grafana knows of itself.
const BUILT_IN: [&str; 4] = ["__rate_interval", "__range", "__url_time_range", "__value"];

/// What a dashboard asks Prometheus.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Whose it is, for people.
    pub(super) of: String,
    pub(super) expression: String,
}

/// A dashboard as its file says.
pub(super) struct Dashboard {
    name: String,
    json: Value,
}

impl Dashboard {
    /// All there are.
    pub(super) fn all() -> Vec<Self> {
        let read = |path: std::path::PathBuf| Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            json: serde_json::from_str(&fs::read_to_string(&path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        };
        files_of("grafana/dashboards", ".json").into_iter().map(read).collect()
    }

    /// Panels, those in rows that are folded among them.
    fn panels(&self) -> impl Iterator<Item = &Value> {
        let panels = list(&self.json["panels"]);
        panels.flat_map(|panel| [panel].into_iter().chain(list(&panel["panels"])))
    }

    fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"]["list"])
    }

    /// Everything that Prometheus is asked for panels and annotations.
    pub(super) fn questions(&self) -> Vec<Question> {
        let of_panels = self.panels().filter(|p| p["datasource"]["uid"] == "prometheus");
        let of_panels = of_panels.flat_map(|panel| {
            list(&panel["targets"]).map(move |target| (text(&panel["title"]), &target["expr"]))
        });
        let annotations = list(&self.json["annotations"]["list"]);
        let annotations = annotations.map(|a| (text(&a["name"]), &a["expr"]));
        let question = |(title, expression): (&str, &Value)| Question {
            of: format!("{}: {title}", self.name),
            expression: text(expression).to_owned(),
        };
        of_panels.chain(annotations).map(question).collect()
    }

    /// Label and metric of the variables that Prometheus is asked for.
    pub(super) fn label_values(&self) -> Vec<(String, String)> {
        let asked = self.variables().filter(|v| v["datasource"]["uid"] == "prometheus");
        let query = asked.map(|variable| {
            let query = text(&variable["query"]["query"]);
            let inner = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
            let (metric, label) = inner.and_then(|q| q.rsplit_once(", ")).expect(query);
            (label.to_owned(), metric.to_owned())
        });
        query.collect()
    }

    /// Fails if something is amiss that Grafana shows to the user, not to who wrote it.
    fn check(&self, sources: &BTreeSet<String>) {
        let name = &self.name;
        let mut ids = BTreeSet::new();
        let mut places: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in self.panels() {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title} has another's id");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap());
            assert!(x + w <= 24 && w > 0 && h > 0, "{name}: {title} leaves the page");
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = places.insert(place, title);
                assert_eq!(other, None, "{name}: {title} covers another panel");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(!text(&panel["description"]).is_empty(), "{name}: {title} is not described");
            assert!(list(&panel["targets"]).count() > 0, "{name}: {title} asks nothing");
            let source = text(&panel["datasource"]["uid"]);
            assert!(sources.contains(source), "{name}: {title} asks {source:?}");
            if panel["type"] != "logs" {
                let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
                let unit =
                    if unit.is_empty() { text(&panel["options"]["yAxis"]["unit"]) } else { unit };
                assert!(UNITS.contains(&unit), "{name}: {title} has unit {unit:?}");
            }
        }
        for asking in self.variables().chain(list(&self.json["annotations"]["list"])) {
            if let Some(source) = asking["datasource"]["uid"].as_str() {
                assert!(sources.contains(source), "{name}: {} asks {source:?}", asking["name"]);
            }
        }
        self.check_variables();
    }

    /// Every variable that is used is there, and every one that is there is used.
    fn check_variables(&self) {
        let (name, json) = (&self.name, self.json.to_string());
        let defined: BTreeSet<_> = self.variables().map(|v| text(&v["name"])).collect();
        let mut used = BTreeSet::new();
        for rest in json.split('$').skip(1) {
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            used.insert(&rest[..end.unwrap_or(rest.len())]);
        }
        let known = |word: &&&str| {
            defined.contains(**word)
                || BUILT_IN.contains(*word)
                || **word == "__field"
                || **word == "__all"
        };
        let unknown: Vec<_> = used.iter().filter(|word| !known(word)).collect();
        assert!(unknown.is_empty(), "{name} uses {unknown:?}, which are not defined");
        let idle: Vec<_> = defined.difference(&used).collect();
        assert!(idle.is_empty(), "{name} does not use {idle:?}");
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The uids of the data sources.
fn sources() -> BTreeSet<String> {
    let path = folder().join("grafana/provisioning/datasources/datasources.yml");
    let file = fs::read_to_string(path).unwrap();
    let uids: BTreeSet<_> =
        file.lines().filter_map(|line| line.strip_prefix("    uid: ")).collect();
    for leads_to in file.lines().filter_map(|line| line.trim().split_once("datasourceUid: ")) {
        assert!(uids.contains(leads_to.1), "a link leads to {}", leads_to.1);
    }
    uids.into_iter().map(str::to_owned).collect()
}

#[test]
fn grafana_and_people_can_read_the_dashboards() {
    let sources = sources();
    assert_eq!(sources.iter().collect::<Vec<_>>(), ["alertmanager", "loki", "prometheus", "tempo"]);
    let all = Dashboard::all();
    for dashboard in &all {
        dashboard.check(&sources);
    }
    let uids: BTreeSet<_> = all.iter().map(|d| text(&d.json["uid"])).collect();
    assert_eq!(uids.len(), all.len(), "two dashboards have one uid");
    for dashboard in &all {
        let json = dashboard.json.to_string();
        for uid in json.split("/d/").skip(1).filter_map(|rest| rest.split(['/', '"']).next()) {
            assert!(uids.contains(uid), "{} links to {uid:?}", dashboard.name);
        }
    }
}

#[tokio::test]
async fn dashboards_are_tidy() {
    let tidy = folder().join("grafana/tidy");
    said(
        Command::new("python3")
            .arg(tidy)
            .arg("--check")
            .args(files_of("grafana/dashboards", ".json")),
    )
    .await;
}
