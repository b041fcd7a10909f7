//! The folder `monitoring/`: its files are what their readers take, its alerts fire when they should and go to whom they should,
//! and every expression of its rules and dashboards finds data in a Prometheus that scrapes the running platform.

mod alertmanager;
mod dashboards;
mod expressions;
mod files;
mod live;
mod platform;

use std::path::PathBuf;

use tokio::process::Command;

use crate::tools;

/// The folder.
fn folder() -> PathBuf {
    tools::root().join("monitoring")
}

/// Files of a folder of it, by their name's end.
fn files_of(path: &str, ending: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder().join(path)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = all.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "{path} has no {ending}");
    files
}

/// What the program says; fails if it fails.
async fn said(command: &mut Command) -> String {
    let program = command.as_std().get_program().to_owned();
    let output = command.output().await;
    let output = output
        .unwrap_or_else(|error| panic!("{program:?} does not start ({error}); run scripts/setup"));
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
