//! The whole platform runs, Prometheus scrapes it as configured and judges it by the rules: and every expression of every rule and
//! every dashboard finds data.

use std::{collections::BTreeSet, fs, mem, net::SocketAddr, path::Path, time::Duration};

use axum::{Router, routing::get};
use serde_json::Value;
use shardmeter_api::Api;
use shardmeter_process::{ManagerConfig, testing::until};
use shardmeter_pubsub::testing::RedisServer;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    dashboards::{Dashboard, Question},
    expressions::{selectors, without_filters},
    files::for_any_alertmanager,
    files_of, folder,
    platform::Listening,
};
use crate::{
    prometheus::Prometheus,
    system::{Fleet, RunningManager},
    tools::free_addr,
};

/// What has no data here, by a piece of the selector, and why.
const NO_DATA: [(&str, &str); 6] = [
    ("container_", "Debian has no cAdvisor"),
    ("ALERTS{", "no alert fires but the watchdog"),
    ("overflow=\"true\"", "no shard is over its limit"),
    ("status_code=~\"5..\"", "no request fails"),
    ("redis_pubsub_messages_dropped_total", "no event is lost"),
    ("api_events_lost_total", "no event is lost"),
];

/// Expressions that are empty while all is well, though each of their selectors has data.
const EMPTY_WHEN_WELL: [(&str, &str); 2] =
    [("Alerts", "no alert fires but the watchdog"), ("Shards go down", "no shard goes down")];

/// Alerts whose expression is empty while all is well, even when its comparisons leave nothing out.
const QUIET_ALERTS: [(&str, &str); 7] = [
    ("ManagerDown", "what was scraped is left out"),
    ("NoShards", "a fleet with shards is left out"),
    ("ApiDown", "what was scraped is left out"),
    ("TargetDown", "what was scraped is left out"),
    ("ShardWithoutEvents", "compares with the hour before"),
    ("SeriesOverflow", "no shard is over its limit"),
    ("ApiErrorRatioHigh", "no request fails"),
];

/// The platform as Prometheus sees it.
struct Platform {
    manager: RunningManager,
    fleet: Fleet,
    prometheus: Prometheus,
    _visitor: AbortOnDropHandle<()>,
    _redis: RedisServer,
    _others: Vec<Listening>,
    _files: tempfile::TempDir,
}

impl Platform {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let manager = RunningManager::start_with(shardmeter_manager::Config {
            data_dir: Some(files.path().join("journal")),
            ..shardmeter_manager::Config::default()
        })
        .await;
        let redis = RedisServer::start().await;
        let bot = shardmeter_shard::Config {
            redis_url: Some(redis.url().into()),
            ..shardmeter_shard::Config::new("token")
        };
        let fleet = Fleet::start_with(2, 6, 40.0, manager.grpc, bot).await;
        let postgres = Listening::postgres().await;
        let (api, visitor) = start_api(&manager, &postgres, &redis).await;
        let config = files.path().join("alertmanager.yml");
        let text = fs::read_to_string(folder().join("alertmanager/alertmanager.yml")).unwrap();
        let text = for_any_alertmanager(&text, "http://127.0.0.1:1/");
        fs::write(&config, text.replace("  - templates/*.tmpl", &templates())).unwrap();
        let others = vec![
            Listening::alertmanager(&config).await,
            Listening::redis_exporter(&redis.url()).await,
            Listening::postgres_exporter(postgres.addr).await,
            Listening::node_exporter().await,
            postgres,
        ];
        let addresses = [
            ("api:3000", api),
            ("manager:30000", manager.http),
            ("alertmanager:9093", others[0].addr),
            ("redis-exporter:9121", others[1].addr),
            ("postgres-exporter:9187", others[2].addr),
            ("node-exporter:9100", others[3].addr),
        ];
        let rules = files.path().join("rules");
        fs::create_dir(&rules).unwrap();
        let prometheus = start_prometheus(&addresses, &rules).await;
        Self {
            manager,
            fleet,
            prometheus,
            _visitor: visitor,
            _redis: redis,
            _others: others,
            _files: files,
        }
    }

    /// The expression as a user sees it who chose one of everything: `.*` would also fit labels that are not there.
    fn chosen(&self, expression: &str) -> String {
        let instance = self.manager.http.to_string();
        let choices = [
            ("$__rate_interval", "1m"),
            ("$__range", "5m"),
            ("$fleet", "main"),
            ("$shard_id", "0"),
            ("$command_name", "ping"),
            ("$instance", &instance),
        ];
        let chosen = choices.iter().fold(expression.to_owned(), |text, (n, v)| text.replace(n, v));
        assert!(!chosen.contains('$'), "{chosen}");
        chosen
    }

    /// Why the expression has no data; `None` if it has.
    async fn missing(&self, question: &Question) -> Option<String> {
        let Question { of, expression } = question;
        match self.prometheus.query(expression).await {
            Ok(found) if found.values().any(|value| !value.is_nan()) => None,
            Ok(found) if found.is_empty() => Some(format!("{of}: no data of {expression}")),
            Ok(_) => Some(format!("{of}: only NaN of {expression}")),
            Err(error) => Some(format!("{of}: {expression}: {error}")),
        }
    }

    /// Fails if some of them have no data for too long.
    async fn assert_answered(&self, mut questions: Vec<Question>) {
        until("all have data", async || {
            let (mut left, mut reasons) = (Vec::new(), Vec::new());
            for question in mem::take(&mut questions) {
                if let Some(reason) = self.missing(&question).await {
                    reasons.push(reason);
                    left.push(question);
                }
            }
            questions = left;
            if reasons.is_empty() { Ok(()) } else { Err(reasons.join("\n")) }
        })
        .await;
    }

    /// Every rule, as Prometheus has read them.
    async fn rules(&self) -> Vec<Value> {
        let answer = self.prometheus.api("rules", &[]).await.unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

/// An api on the database, and somebody who asks it, also for what there is not.
async fn start_api(
    manager: &RunningManager,
    postgres: &Listening,
    redis: &RedisServer,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let api = Api::build(shardmeter_api::Config {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        database_url: format!("postgres://shardmeter@{}/postgres", postgres.addr).into(),
        manager: ManagerConfig::at(format!("http://{}", manager.grpc)),
        redis_url: Some(redis.url().into()),
        ..shardmeter_api::Config::default()
    });
    let api = api.await.unwrap();
    let addr = api.addr();
    let visiting = async move {
        loop {
            for path in ["api/v1/shards", "api/v1/nothing"] {
                let _answer = reqwest::get(format!("http://{addr}/{path}")).await;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let running = async move {
        tokio::select! {
            ended = api.run(std::future::pending()) => ended.unwrap(),
            () = visiting => {}
        }
    };
    (addr, AbortOnDropHandle::new(tokio::spawn(running)))
}

/// Alertmanager's templates where they are.
fn templates() -> String {
    format!("  - {}/alertmanager/templates/*.tmpl", folder().display())
}

/// Our Prometheus: as configured, but for where its targets are, and faster.
async fn start_prometheus(addresses: &[(&str, SocketAddr)], scratch: &Path) -> Prometheus {
    for rules in files_of("prometheus/rules", ".yml") {
        let text = fs::read_to_string(&rules).unwrap().replace("interval: 5m", "interval: 1s");
        fs::write(scratch.join(rules.file_name().unwrap()), text).unwrap();
    }
    let text = fs::read_to_string(folder().join("prometheus/prometheus.yml")).unwrap();
    let rules = format!("  - {}/*.yml", scratch.display());
    let mut text =
        text.replace("_interval: 15s", "_interval: 1s").replace("  - rules/*.yml", &rules);
    let (itself, nowhere) = (free_addr(), free_addr());
    for (name, addr) in addresses {
        assert!(text.contains(name), "{name} is not scraped");
        text = text.replace(name, &addr.to_string());
    }
    let text = text.replace("cadvisor:8080", &nowhere.to_string());
    let text = text.replace("localhost:9090", &itself.to_string());
    Prometheus::start_configured(&text, itself, &["--enable-feature=exemplar-storage"]).await
}

fn allowed(selector: &str) -> bool {
    NO_DATA.iter().any(|(piece, _)| selector.contains(piece))
}

/// The expression and each of its selectors, but for those that may be without data.
fn parts(of: &str, expression: &str, also_whole: bool) -> Vec<Question> {
    let selectors = selectors(expression);
    let whole =
        (also_whole && !selectors.iter().any(|s| allowed(s))).then(|| expression.to_owned());
    let parts = selectors.into_iter().filter(|selector| !allowed(selector)).chain(whole);
    parts.map(|expression| Question { of: of.to_owned(), expression }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_expression_finds_data() {
    let platform = Platform::start().await;
    let (mut questions, mut all) = (Vec::new(), Vec::new());
    for rule in platform.rules().await {
        let (name, query) = (rule["name"].as_str().unwrap(), rule["query"].as_str().unwrap());
        let alerting = rule["type"] == "alerting";
        all.push(query.to_owned());
        questions.extend(parts(name, query, !alerting));
        if alerting && !QUIET_ALERTS.iter().any(|(quiet, _)| *quiet == name) {
            let unfiltered = parts(name, &without_filters(query), true).pop();
            questions.extend(unfiltered);
        }
    }
    for dashboard in Dashboard::all() {
        for Question { of, expression } in dashboard.questions() {
            all.push(expression.clone());
            let quiet = EMPTY_WHEN_WELL.iter().any(|(name, _)| of.ends_with(&format!(": {name}")));
            questions.extend(parts(&of, &platform.chosen(&expression), !quiet));
        }
        for (label, metric) in dashboard.label_values() {
            let metric = platform.chosen(&metric);
            let expression = match metric.strip_suffix('}') {
                Some(start) => format!("{start}, {label}!=\"\"}}"),
                None => format!("{metric}{{{label}!=\"\"}}"),
            };
            questions.push(Question { of: format!("values of {label}"), expression });
        }
    }
    assert!(all.len() > 150, "rules and dashboards are read");
    for (piece, reason) in NO_DATA {
        let used = all.iter().any(|expression| expression.contains(piece));
        assert!(used, "nothing asks for {piece} any more ({reason})");
    }
    platform.assert_answered(questions).await;

    for rule in platform.rules().await {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    let firing = platform.prometheus.query("ALERTS{alertstate=\"firing\"}").await.unwrap();
    let firing: BTreeSet<_> =
        firing.keys().map(|(_, labels)| labels["alertname"].as_str()).collect();
    assert_eq!(firing.into_iter().collect::<Vec<_>>(), ["Watchdog"]);
    platform.fleet.stop().await;
    platform.manager.stop().await;
}

/// What ScrapeInvalid goes by: of a page that breaks off Prometheus says how much it read; of one that is away, that it was nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_tells_an_invalid_page_from_none() {
    let page = Router::new().route("/metrics", get(|| async { "a 1\nb 2\nc{ 3\n" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let invalid = listener.local_addr().unwrap();
    let serving = tokio::spawn(async { axum::serve(listener, page).await.unwrap() });
    let prometheus =
        Prometheus::start_with(&[("invalid", invalid), ("away", free_addr())], &[]).await;
    until("both were scraped", || async {
        let of = async |query: &str| -> Result<Vec<f64>, String> {
            Ok(prometheus.query(query).await?.into_values().collect())
        };
        let invalid = of("scrape_samples_scraped{job=\"invalid\"} > 0 and up == 0").await?;
        let away = of("scrape_samples_scraped{job=\"away\"} == 0 and up == 0").await?;
        if (invalid.as_slice(), away.as_slice()) == (&[2.0], &[0.0]) {
            Ok(())
        } else {
            Err(format!("{invalid:?} {away:?}"))
        }
    })
    .await;
    serving.abort();
}
