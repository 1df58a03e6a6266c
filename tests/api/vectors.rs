//! The conformance vectors: the 45 rows of the contract's last table, one test each, by subject.
//!
//! A test is called `v`, the two digits of its row, and what the row says. Those that need a real client have their server's
//! half here; the clients themselves are in `tests/clients`.

mod access;
mod content_safety;
mod conversations;
mod embeddings;
mod extras;
mod limits;
mod openai;
mod refusals;
mod selection;
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Rows of the table.
const ROWS: u32 = 45;

/// Names of the tests in `source` that are rows of the table, by their number.
fn rows(source: &str) -> Vec<(u32, String)> {
    let mut rows = Vec::new();
    let mut attribute = "";
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("async fn v").filter(|_| attribute.contains("test")) {
            let number = name.get(..2).and_then(|digits| digits.parse().ok());
            let name = name.split('(').next().unwrap_or_default();
            rows.extend(number.map(|number| (number, format!("v{name}"))));
        }
        attribute = line;
    }
    rows
}

#[test]
fn every_row_of_the_table_is_one_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("api/vectors");
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for file in fs::read_dir(folder).unwrap() {
        let source = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!source.contains("#[ignore"), "a vector that does not run proves nothing");
        for (number, name) in rows(&source) {
            found.entry(number).or_default().push(name);
        }
    }
    let missing: Vec<_> = (1..=ROWS).filter(|row| !found.contains_key(row)).collect();
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
    let odd: Vec<_> = found.iter().filter(|(row, names)| **row > ROWS || names.len() > 1).collect();
    assert!(odd.is_empty(), "no such row, or two tests of one: {odd:?}");
}
