//! Whatever a hostile or mistaken sender says, it gets one clear answer, and nobody else notices: a message that is refused
//! leaves the page as it was, byte by byte; of one that is taken in part, the rest is there (design section 4, E4 and E5).
//!
//! A row is one message. What its sender reports beside the bad part is the counter `rest_total`.

mod bodies;
mod messages;

use std::fmt::Write as _;

use crate::server::Server;

/// What a row's answer must be.
enum Expected {
    /// Refused with this status and a message that says this; nothing changed.
    Refused(u16, &'static str),
    /// Taken, but for these: family, reason and part of the message of each. `rest_total` is one higher.
    Partly(&'static [(&'static str, &'static str, &'static str)]),
    /// Taken as a whole, with these lines on the page, and without what stands after `!`.
    Taken(&'static [&'static str]),
}

/// What went wrong in a table, row by row, so that one run says all of it.
#[derive(Default)]
struct Failures(String);

impl Failures {
    fn check(&mut self, is_so: bool, row: &str, what: impl std::fmt::Display) {
        if !is_so {
            writeln!(self.0, "{row}: {what}").unwrap();
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// All but what the manager says of itself, and, where `sender` is given, of what that shard reported how often and when.
fn without_own(page: &str, sender: Option<u32>) -> Vec<&str> {
    let shard = sender.map(|id| format!("{{shard_id=\"{id}\""));
    let is_own = |line: &&str| {
        let is_of_sender = shard.as_ref().is_some_and(|shard| line.contains(shard.as_str()));
        line.contains("shardmeter_manager_")
            || line.starts_with("shard_rejected_samples_total")
            || is_of_sender
                && [
                    "shard_reports_total",
                    "shard_last_report",
                    "shard_instance_start",
                    "rest_total",
                ]
                .iter()
                .any(|name| line.starts_with(name))
    };
    page.lines().filter(|line| !is_own(line)).collect()
}

/// The value of `rest_total` of a shard.
fn rest(page: &str, shard_id: u32) -> f64 {
    let head = format!("rest_total{{shard_id=\"{shard_id}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&head));
    value.map_or(0.0, |value| value.parse().unwrap())
}

impl Failures {
    /// The page after a message, beside that before it.
    fn check_page(
        &mut self,
        row: &str,
        expected: &Expected,
        shard_id: u32,
        (before, after): (&str, &str),
    ) {
        match expected {
            Expected::Refused(..) => {
                let same = without_own(before, None) == without_own(after, None);
                self.check(same, row, format_args!("the page changed:\n{after}"));
            }
            Expected::Partly(_) => {
                let sender = Some(shard_id);
                let same = without_own(before, sender) == without_own(after, sender);
                self.check(same, row, format_args!("more than the rest changed:\n{after}"));
                let (before, after) = (rest(before, shard_id), rest(after, shard_id));
                self.check(
                    after == before + 1.0,
                    row,
                    format_args!("the rest went from {before} to {after}"),
                );
            }
            Expected::Taken(lines) => {
                for line in *lines {
                    let found = match line.strip_prefix('!') {
                        Some(unwanted) => !after.lines().any(|l| l.starts_with(unwanted)),
                        None => after.lines().any(|l| l == *line),
                    };
                    self.check(found, row, format_args!("{line} is not so:\n{after}"));
                }
            }
        }
    }
}

/// The page as whoever knows all names reads it.
async fn page(server: &Server) -> String {
    let request = reqwest::Client::new().get(format!("{}/metrics", server.http));
    let request =
        request.header("accept", "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8");
    request.send().await.unwrap().text().await.unwrap()
}
