//! What each metric is, in words: the `HELP` lines of `/metrics`.
//!
//! The words are those of the table in `docs/metrics.md`, which is compiled in, so that neither can say anything else.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// The document with the table of all metrics.
const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

/// Tells the recorder what every metric is.
pub(super) fn describe() {
    for Row { name, kind, words } in rows() {
        match kind {
            "counter" => describe_counter!(name, words),
            "gauge" => describe_gauge!(name, words),
            _ => describe_histogram!(name, words),
        }
    }
}

/// A row of the table.
struct Row {
    name: &'static str,
    kind: &'static str,
    /// Without the marks of Markdown.
    words: String,
}

fn rows() -> impl Iterator<Item = Row> {
    DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = cells.next().filter(|kind| ["counter", "gauge", "histogram"].contains(kind))?;
        let words = cells.next_back()?.replace("**", "").replace('`', "");
        Some(Row { name, kind, words })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let table = DOCUMENT.split("\n## ").find(|part| part.starts_with("Metrics\n")).unwrap();
        let written = table.lines().filter(|line| line.starts_with("| `")).count();
        let rows: Vec<_> = rows().collect();
        assert_eq!(rows.len(), written);
        let row = rows.iter().find(|row| row.name == "edge_in_flight_requests").unwrap();
        assert_eq!(
            (row.kind, row.words.as_str()),
            ("gauge", "Requests that have come and not ended; the edge's signal for scaling")
        );
    }
}
