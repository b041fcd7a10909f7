//! What holds for all routes: problem documents, metrics, the OpenAPI document and its page.

use serde_json::Value;

use crate::{
    backend::Backend,
    server::{Server, problem},
};

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let server = Server::start(Backend::Sqlite).await;
    for path in ["/", "/api", "/api/v1/guilds/1/setting", "/docs/none.js", "/%00"] {
        problem(server.get(path).send().await.unwrap(), 404, "not_found").await;
    }
    let url = format!("{}/api/v1/guilds/1/settings", server.url);
    let answer = server.client.delete(&url).send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "GET,HEAD,PUT");
    problem(answer, 405, "method_not_allowed").await;
    for path in [
        "/api/v1/commands/top?limit=0",
        "/api/v1/commands/top?limit=101",
        "/api/v1/commands/top?window=2h",
        "/api/v1/guilds/%ff/settings",
    ] {
        problem(server.get(path).send().await.unwrap(), 400, "invalid").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn scanners_make_no_series() {
    let server = Server::start(Backend::Sqlite).await;
    let lines = |page: &str| page.lines().filter(|line| line.starts_with("http_request")).count();
    let get = async |path: &str| server.get(path).send().await.unwrap().status().as_u16();
    let method = |name: &str| reqwest::Method::from_bytes(name.as_bytes()).unwrap();
    let odd = async |name: &str| {
        server.client.request(method(name), &server.url).send().await.unwrap().status().as_u16()
    };
    assert_eq!((get("/wp-login.php").await, get("/api/v1/guilds/1/settings").await), (404, 200));
    assert_eq!(odd("SCAN").await, 404);
    server.page().await;
    let before = lines(&server.page().await);
    for i in 0_u32..10_000 {
        let path = match i % 4 {
            0 => format!("/{i}.php"),
            1 => format!("/api/v1/{i}?x={i}"),
            2 => format!("/api/v1/guilds/{}/settings", i + 1),
            _ => format!("/{i}/{i}/..%2f{i}"),
        };
        assert_eq!(get(&path).await, if i % 4 == 2 { 200 } else { 404 });
    }
    for i in 0..100 {
        assert_eq!(odd(&format!("SCAN{i}")).await, 404);
    }
    let page = server.page().await;
    assert_eq!(lines(&page), before, "{page}");
    let route = r#"route="/api/v1/guilds/{guild_id}/settings""#;
    let counted = server
        .value(&format!("http_requests_total{{method=\"GET\",{route},status_code=\"200\"}}"))
        .await;
    assert_eq!(counted, 2501.0);
    let other = r#"http_requests_total{method="GET",route="other",status_code="404"}"#;
    assert_eq!(server.value(other).await, 7501.0);
    let errors =
        r#"http_request_errors_total{error_type="not_found",method="other",route="other"}"#;
    assert_eq!(server.value(errors).await, 101.0);
    server.stop().await;
}

#[tokio::test]
async fn the_page_has_the_names_of_the_contract() {
    let server = Server::start(Backend::Sqlite).await;
    let page = server.page().await;
    for family in [
        "# TYPE database_connection_status gauge",
        "# TYPE manager_connection_status gauge",
        "# TYPE memory_usage_bytes gauge",
        "# TYPE cpu_usage_percent gauge",
    ] {
        assert!(page.contains(family), "{family}:\n{page}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_can_be_browsed_offline() {
    let server = Server::start(Backend::Sqlite).await;
    let document = server.json("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{document}");
    let settings = &document["paths"]["/api/v1/guilds/{guild_id}/settings"];
    for (method, statuses) in [
        ("get", &["200", "304", "400", "401", "403", "429", "500", "503"][..]),
        ("put", &["200", "400", "401", "403", "412", "413", "415", "428", "429", "500", "503"]),
    ] {
        let Value::Object(answers) = &settings[method]["responses"] else { panic!("{settings}") };
        let documented: Vec<_> = answers.keys().map(String::as_str).collect();
        assert_eq!(documented, statuses, "{method}");
    }
    let page = server.get("/docs/").send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "text/html");
    let page = page.text().await.unwrap();
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    for part in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"] {
        assert!(page.contains(part), "{part}: {page}");
        assert_eq!(server.get(&format!("/docs/{part}")).send().await.unwrap().status(), 200);
    }
    let start = server.get("/docs/swagger-initializer.js").send().await.unwrap();
    assert!(start.text().await.unwrap().contains("/openapi.json"));
    server.stop().await;
}
