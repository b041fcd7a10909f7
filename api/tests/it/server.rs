//! A running api.

use std::num::NonZeroU32;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use shardmeter_api::{AccessConfig, Api, Config, ManagerConfig, TaskEnded, events::Events};
use shardmeter_process::{
    Secret,
    testing::{soon, until},
};
use shardmeter_pubsub::testing::RedisServer;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    backend::{Backend, Database},
    manager::Manager,
};

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) events: Events,
    /// Of its own, if it was started with one.
    pub(crate) database: Option<Database>,
    /// The same; on PostgreSQL, as in production.
    pub(crate) redis: Option<RedisServer>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), TaskEnded>>,
}

impl Server {
    /// On a database of its own, which is there, and on PostgreSQL with a Redis of its own; without a manager.
    pub(crate) async fn start(backend: Backend) -> Self {
        Self::start_as(backend, no_manager()).await
    }

    /// The same, with a manager.
    pub(crate) async fn start_beside(backend: Backend, manager: &Manager) -> Self {
        let config = Config { manager: ManagerConfig::at(manager.endpoint()), ..config() };
        Self::start_as(backend, config).await
    }

    /// The same, as configured.
    pub(crate) async fn start_as(backend: Backend, config: Config) -> Self {
        Self::start_over(Database::start(backend).await, backend, config).await
    }

    /// The same, on a database that has something in it.
    pub(crate) async fn start_over(database: Database, backend: Backend, config: Config) -> Self {
        let redis = match backend {
            Backend::Postgres => Some(RedisServer::start().await),
            Backend::Sqlite => None,
        };
        let redis_url = redis.as_ref().map(|redis| redis.url().into());
        let config = Config { database_url: database.url(), redis_url, ..config };
        let server = Self { database: Some(database), redis, ..Self::start_with(config).await };
        server.wait_until_ready().await;
        server
    }

    /// On a database that may be there or not.
    pub(crate) async fn start_on(database_url: Secret) -> Self {
        Self::start_with(Config { database_url, ..no_manager() }).await
    }

    /// As configured, on a free port.
    pub(crate) async fn start_with(config: Config) -> Self {
        let config = Config { addr: ([127, 0, 0, 1], 0).into(), ..config };
        let api = Api::build(config).await.unwrap();
        let events = api.events();
        let url = format!("http://{}", api.addr());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(api.run(async {
            let _ = stopped.await;
        }));
        Self { url, client: Client::new(), events, database: None, redis: None, stop, running }
    }

    /// Stops it, and fails if that takes long.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        soon("the api stops", self.running).await.unwrap().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.put(format!("{}{path}", self.url)).json(body)
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    pub(crate) async fn page(&self) -> String {
        self.get("/metrics").send().await.unwrap().text().await.unwrap()
    }

    /// The value of a series on the page.
    pub(crate) async fn value(&self, series: &str) -> f64 {
        let page = self.page().await;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series}:\n{page}")).parse().unwrap()
    }

    pub(crate) async fn wait_until_ready(&self) {
        self.wait_for_readiness(StatusCode::OK).await;
    }

    /// Waits until `/readyz` answers so.
    pub(crate) async fn wait_for_readiness(&self, status: StatusCode) {
        let said = until("/readyz", async || {
            let answer = self.get("/readyz").send().await.unwrap();
            let (answered, said) = (answer.status(), answer.json::<Value>().await.unwrap());
            if answered == status { Ok(said) } else { Err(format!("{answered}: {said}")) }
        });
        let said = said.await;
        let up = if status == StatusCode::OK { "up" } else { "down" };
        assert_eq!(said["database"], up, "{said}");
    }
}

/// Checks that an answer is a problem document of this kind, and returns what it says.
pub(crate) async fn problem(answer: Response, status: u16, error_type: &str) -> String {
    let path = answer.url().path().to_owned();
    assert_eq!(answer.status().as_u16(), status, "{path}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    let document: Value = answer.json().await.unwrap();
    assert_eq!(document["type"], format!("urn:shardmeter:problem:{error_type}"), "{document}");
    assert_eq!(document["status"], status, "{document}");
    assert_eq!(document["instance"], path, "{document}");
    document["detail"].as_str().unwrap().to_owned()
}

/// All tests come from one address, and some ask for much at once.
pub(crate) fn config() -> Config {
    let requests_per_second = NonZeroU32::MAX;
    let access = AccessConfig { requests_per_second, ..AccessConfig::default() };
    Config { access, ..Config::default() }
}

/// Nobody is where the manager should be.
pub(crate) fn no_manager() -> Config {
    Config { manager: ManagerConfig::at("http://127.0.0.1:9"), ..config() }
}
