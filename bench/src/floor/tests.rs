//! The senders and the scraper, against a floor.

use std::{future::pending, time::Duration};

use super::*;
use crate::{
    grpc::Fleet,
    http::{Posters, Route, Scraper, client},
    shard::{Change, Shard},
    workload::SERIES_PER_SHARD,
};

const SHARDS: u32 = 20;

async fn running() -> (String, String) {
    let floor = Floor::build().await.unwrap();
    let addrs = (format!("http://{}", floor.http_addr), floor.grpc_addr.to_string());
    tokio::spawn(floor.run(pending()));
    addrs
}

#[tokio::test]
async fn every_frame_is_acknowledged_and_timed() {
    let (_, grpc) = running().await;
    let mut fleet = Fleet::open(&grpc, SHARDS).await.unwrap();
    for change in [Change::Nothing, Change::SameTenth, Change::RandomTenth, Change::All] {
        let load = fleet.saturate(change, 3).await.unwrap();
        assert_eq!(load.latencies.len(), 3 * SHARDS as usize);
    }
    let (gap, lasts) = (Duration::from_millis(1), Duration::from_millis(50));
    let load = fleet.pace(Change::SameTenth, gap, lasts).await.unwrap();
    assert_eq!(load.latencies.len(), 50);
    assert!(load.wall >= lasts - gap);
}

#[tokio::test]
async fn every_body_is_answered_on_each_route_there_is() {
    let (http, _) = running().await;
    for route in [Route::ShardMetrics, Route::LabelledShardMetrics] {
        let mut posters = Posters::open(&http, route, SHARDS).await.unwrap();
        let load = posters.post(Change::All, 33).await.unwrap();
        assert_eq!(load.latencies.len(), 33);
    }
    let refused = Posters::open(&http, Route::Pushgateway, 1).await.err().unwrap().to_string();
    assert!(refused.contains("404"), "{refused}");
}

#[tokio::test]
async fn a_page_that_lies_ready_is_sent_as_it_is() {
    let (http, _) = running().await;
    let scraper = Scraper::new(&http).unwrap();
    let page = Shard::new(0).text(true);
    for encoding in Encoding::ALL {
        let url = format!("{http}/pages/{}", encoding.name());
        client().unwrap().put(url).body(page.clone()).send().await.unwrap();
        assert_eq!(scraper.page(encoding).await.unwrap(), page);
    }
    scraper.expect_samples(SERIES_PER_SHARD).await.unwrap();
}
