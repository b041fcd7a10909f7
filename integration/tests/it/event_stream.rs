//! Server-Sent Events as curl gets them.

use reqwest::Response;
use serde_json::Value;
use shardmeter_process::testing::soon;

pub(crate) struct EventStream {
    answer: Response,
    /// What came, and is not read yet.
    text: String,
}

impl EventStream {
    pub(crate) async fn follow(url: &str) -> Self {
        let answer = reqwest::get(url).await.unwrap().error_for_status().unwrap();
        Self { answer, text: String::new() }
    }

    /// Name and data of the next event that has data.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let (name, data) = (field("event: ").unwrap_or_default(), field("data: "));
                let told = data.map(|data| (name.to_owned(), serde_json::from_str(data).unwrap()));
                self.text = rest.to_owned();
                if let Some(told) = told {
                    return told;
                }
            }
            let chunk = soon("an event", self.answer.chunk()).await.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
        }
    }
}
