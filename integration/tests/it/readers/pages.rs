//! Pages in a folder, for `integration/python/read_pages.py`.

use std::fs;

use serde_json::{Value, json};
use tokio::process::Command;

use super::reported::ShownFamily;
use crate::{
    process::Scratch,
    tools::{self, python, root},
};

pub(crate) struct Pages {
    folder: Scratch,
    pages: Vec<Value>,
    /// What the pages that come next are of.
    of: String,
}

impl Pages {
    pub(crate) fn new(test: &str) -> Self {
        Self { folder: Scratch::new(test), pages: Vec::new(), of: String::new() }
    }

    /// What the pages that are added next must say, and what they are `of`: a reader that finds a difference names it.
    pub(crate) fn must_show(&mut self, of: String, families: &[ShownFamily]) {
        self.of = of;
        let families: Vec<Value> = families.iter().map(ShownFamily::to_json).collect();
        let text = Value::from(families).to_string();
        fs::write(self.folder.path().join(self.expected()), text).unwrap();
    }

    fn expected(&self) -> String {
        format!("{}.json", self.of)
    }

    /// `created`: whether OpenMetrics says since when.
    pub(crate) fn add(
        &mut self,
        content_type: &str,
        created: bool,
        coding: Option<&str>,
        body: &[u8],
    ) {
        let file = format!("{}.{}", self.of, self.pages.len());
        fs::write(self.folder.path().join(&file), body).unwrap();
        self.pages.push(json!({
            "file": file,
            "content_type": content_type,
            "created": created,
            "coding": coding.unwrap_or("identity"),
            "expected": self.expected(),
        }));
    }

    /// Has them all read, and returns how many samples there were; fails with the first difference.
    pub(crate) async fn read(self) -> u64 {
        let list = Value::from(self.pages.clone()).to_string();
        fs::write(self.folder.path().join("pages.json"), list).unwrap();
        let mut command = Command::new(python("python"));
        command.arg(root().join("integration/python/read_pages.py")).arg(self.folder.path());
        let reader = tools::start(command.stderr(std::process::Stdio::piped()));
        let output = reader.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "read_pages.py: {}: {said}", output.status);
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read["pages"], json!(self.pages.len()));
        read["samples"].as_u64().unwrap()
    }
}
