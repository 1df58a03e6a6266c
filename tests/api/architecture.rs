//! The arrows between crates and the names that may stand only in one place (ARCHITECTURE.md).
//!
//! Checked over `cargo metadata` and over the text of the sources, so that a wrong arrow is red on the day it is drawn.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may depend on.
const ARROWS: [(&str, &[&str]); 11] = [
    (
        "standalone",
        &["api-types", "edge", "chat", "embedding", "content-safety", "chassis", "model-store"],
    ),
    ("edge", &["api-types", "chassis"]),
    ("chat", &["api-types", "chassis", "model-store", "upstream"]),
    ("embedding", &["api-types", "chassis", "model-store", "onnx", "upstream"]),
    ("content-safety", &["api-types", "chassis", "model-store", "onnx"]),
    ("api-types", &[]),
    ("chassis", &[]),
    ("model-store", &[]),
    ("onnx", &[]),
    ("upstream", &[]),
    // An example stands for a program elsewhere.
    ("grpc-example", &[]),
];

/// A name, and the only places under `crates/` where it may stand.
const HOMES: [(&str, &[&str]); 10] = [
    ("ort::", &["onnx/"]),
    ("tokenizers::", &["onnx/"]),
    ("llama_cpp_2", &["chat/src/local"]),
    ("redis::", &["chassis/src/state"]),
    ("axum", &["edge/", "chassis/src/admin.rs"]),
    ("reqwest", &["upstream/", "model-store/", "edge/src/auth"]),
    ("api_types::rest", &["edge/"]),
    ("tokio::spawn", &["chassis/src/tasks.rs"]),
    ("std::env::var", &["chassis/src/config.rs", "api-types/build.rs"]),
    (
        "anyhow",
        &["chassis/", "standalone/", "src/main.rs", "src/lib.rs", "src/load.rs", "src/service.rs"],
    ),
];

/// Words that must not stand in a source at all, and why.
const BANNED: [(&str, &str); 6] = [
    ("todo!(", "finish it"),
    ("unimplemented!(", "finish it"),
    ("#[ignore", "a test that does not run proves nothing"),
    ("thread::sleep", "wait for an event"),
    ("TODO", "open an issue"),
    ("FIXME", "open an issue"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source under `crates/` with its path relative to it, without what follows `#[cfg(test)]`.
fn crate_sources() -> Vec<(String, String, String)> {
    let base = root().join("crates");
    let mut found = Vec::new();
    sources(&base, &mut found);
    assert!(found.len() > 40, "the scan found only {} files", found.len());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
        (path.strip_prefix(&base).unwrap().display().to_string(), text, shipped)
    };
    // Integration tests of a crate may name what they test with.
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "tests"));
    found.into_iter().map(read).collect()
}

#[test]
fn architecture_arrows_between_crates_are_one_way() {
    let metadata = MetadataCommand::new().no_deps().current_dir(root()).exec().unwrap();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata.packages.iter().filter(|p| p.name.as_str() != "e2e") {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name.as_str())
        else {
            wrong.push(format!(
                "{} is new: argue for it in ARCHITECTURE.md and name its arrows here",
                package.name
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let name = dependency.name.as_str();
            if ours.contains(name) && !allowed.contains(&name) {
                wrong.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn architecture_names_stand_only_in_their_homes() {
    let mut wrong = Vec::new();
    for (path, _, shipped) in crate_sources() {
        for (name, homes) in HOMES {
            let at_home = homes.iter().any(|home| path.contains(home));
            let used = shipped.lines().any(|l| !l.trim_start().starts_with("//") && names(l, name));
            if used && !at_home {
                wrong.push(format!("{path} names `{name}`; only {homes:?} may"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether `line` holds `name` as a path of its own (`ort::` but not `sort::`).
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn architecture_every_source_says_why_it_exists_and_holds_no_leftovers() {
    let mut wrong = Vec::new();
    for (path, text, _) in crate_sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not begin with `//!`"));
        }
        if path.ends_with("mod.rs") {
            wrong.push(format!("{path}: name the file after the module"));
        }
        for (word, why) in BANNED {
            if text.contains(word) {
                wrong.push(format!("{path} holds `{word}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
