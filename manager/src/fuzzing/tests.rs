//! The corpus, replayed without a fuzzer: `fuzz/run` makes it, and what once failed stays in it.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::TARGETS;

#[test]
fn the_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut failed = Vec::new();
    for (target, run) in TARGETS {
        let files = fs::read_dir(corpus.join(target)).unwrap_or_else(|e| panic!("{target}: {e}"));
        let mut inputs: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "{target} has a corpus of {}", inputs.len());
        for path in inputs {
            let input = fs::read(&path).unwrap();
            if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
                failed.push(format!("{target} {}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
