//! Texts and code that are somebody's: whether another text repeats a passage of them.
//!
//! Separate and pure but for loading. Nothing is shipped; an operator names a directory. A passage is so many words, or tokens
//! of code, in a row; only hashes of all passages are kept. Trap: what is shorter than a passage is never detected.

use crate::blocklist::is_word;
use crate::config::ProtectedConfig;
use crate::error::SafetyError;
use crate::normalise::{fold, is_unspaced};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

/// Folders of the directory.
const TEXT: &str = "text";
const CODE: &str = "code";
/// Ends the name of the file that says where another file is from.
const CITATION: &str = ".citation.json";
/// SPDX's word for a licence that nobody stated.
const NO_LICENSE: &str = "NOASSERTION";
/// Sources that one answer names at most, per licence.
const MOST_URLS: usize = 20;

/// Where code is from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Citation {
    /// SPDX identifier.
    pub license: String,
    /// Where it is published.
    #[serde(default)]
    pub source_urls: Vec<String>,
}

/// Everything to compare with.
#[derive(Debug, Default)]
pub struct Protected {
    /// None where there are no files.
    text: Option<Passages>,
    code: Option<Passages>,
}

/// All passages of one folder.
#[derive(Debug)]
struct Passages {
    /// Tokens in a row.
    length: usize,
    /// Hash of a passage and the file it is in, in order.
    hashes: Vec<(u64, u32)>,
    /// What is known of each file.
    citations: Vec<Citation>,
}

impl Protected {
    /// Reads the directory of `config`; blocks.
    ///
    /// # Errors
    /// When a file cannot be read, is no UTF-8, or there is more than the limit; the message names it.
    pub fn load(config: &ProtectedConfig) -> Result<Self, SafetyError> {
        if config.dir.is_empty() {
            return Ok(Self::default());
        }
        let path = Path::new(&config.dir);
        fs::read_dir(path).map_err(|cause| unreadable(path, &cause))?;
        let mut room = config.bytes;
        let text = Folder::read(&path.join(TEXT), &mut room)?;
        let code = Folder::read(&path.join(CODE), &mut room)?;
        Ok(Self {
            text: Passages::of(text, config.text_words, words),
            code: Passages::of(code, config.code_tokens, code_tokens),
        })
    }

    /// Whether `text` repeats a passage.
    ///
    /// # Errors
    /// `NothingProtected` where there are no texts to compare with.
    pub fn detects_text(&self, text: &str) -> Result<bool, SafetyError> {
        let passages = self.text.as_ref().ok_or(SafetyError::NothingProtected { what: TEXT })?;
        Ok(!passages.files_of(&words(text)).is_empty())
    }

    /// Where the passages that `code` repeats are from, one citation per licence; none where it repeats nothing.
    ///
    /// # Errors
    /// `NothingProtected` where there is no code to compare with.
    pub fn detects_code(&self, code: &str) -> Result<Vec<Citation>, SafetyError> {
        let passages = self.code.as_ref().ok_or(SafetyError::NothingProtected { what: CODE })?;
        let mut by_license: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for file in passages.files_of(&code_tokens(code)) {
            let citation = usize::try_from(file).ok().and_then(|at| passages.citations.get(at));
            let Some(Citation { license, source_urls }) = citation else { continue };
            by_license.entry(license).or_default().extend(source_urls.iter().map(String::as_str));
        }
        let citation = |(license, urls): (&str, BTreeSet<&str>)| Citation {
            license: license.to_owned(),
            source_urls: urls.into_iter().take(MOST_URLS).map(str::to_owned).collect(),
        };
        Ok(by_license.into_iter().map(citation).collect())
    }
}

impl Passages {
    /// None where there are no files.
    fn of(
        files: Vec<(String, Citation)>,
        length: usize,
        tokens: fn(&str) -> Vec<u64>,
    ) -> Option<Self> {
        if files.is_empty() {
            return None;
        }
        let (mut hashes, mut citations) = (Vec::new(), Vec::new());
        for (file, (text, citation)) in (0..).zip(files) {
            hashes.extend(tokens(&text).windows(length).map(|passage| (hash(passage), file)));
            citations.push(citation);
        }
        hashes.sort_unstable();
        hashes.dedup();
        Some(Self { length, hashes, citations })
    }

    /// The files that have a passage of `tokens`.
    fn files_of(&self, tokens: &[u64]) -> BTreeSet<u32> {
        let mut files = BTreeSet::new();
        for passage in tokens.windows(self.length) {
            let wanted = hash(passage);
            let from = self.hashes.partition_point(|(hash, _)| *hash < wanted);
            let same = self.hashes.iter().skip(from).take_while(|(hash, _)| *hash == wanted);
            files.extend(same.map(|(_, file)| *file));
        }
        files
    }
}

/// The files of a folder and of those in it.
struct Folder;

impl Folder {
    /// Every file but hidden ones and citations, in the order of their paths; takes what they hold out of `room`.
    fn read(folder: &Path, room: &mut u64) -> Result<Vec<(String, Citation)>, SafetyError> {
        let mut paths = Vec::new();
        Self::list(folder, &mut paths).map_err(|cause| unreadable(folder, &cause))?;
        paths.sort_unstable();
        let file = |path: PathBuf| {
            let length = fs::metadata(&path).map_err(|cause| unreadable(&path, &cause))?.len();
            *room = room.checked_sub(length).ok_or_else(|| {
                let option = "content_safety.protected.bytes";
                SafetyError::Storage(format!(
                    "`{}`: the protected files hold more than `{option}` allows",
                    path.display()
                ))
            })?;
            let text = fs::read_to_string(&path).map_err(|cause| unreadable(&path, &cause))?;
            Ok((text, Self::citation(&path)?))
        };
        paths.into_iter().map(file).collect()
    }

    /// A folder that is missing is empty. Links to files are followed, as mounted configuration has them, links to folders not.
    fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(cause),
        };
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || name.ends_with(CITATION) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                Self::list(&path, paths)?;
            } else if path.is_file() {
                paths.push(path);
            }
        }
        Ok(())
    }

    /// What the file beside `path` says.
    fn citation(path: &Path) -> Result<Citation, SafetyError> {
        let mut name = path.as_os_str().to_owned();
        name.push(CITATION);
        let beside = PathBuf::from(name);
        match fs::read_to_string(&beside) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                let expected = "expected `license` and `sourceUrls`";
                SafetyError::Storage(format!("`{}`: {error}; {expected}", beside.display()))
            }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Ok(Citation { license: NO_LICENSE.to_owned(), source_urls: Vec::new() })
            }
            Err(cause) => Err(unreadable(&beside, &cause)),
        }
    }
}

/// Hashes of the words of a text, whatever their case and what stands between them. In scripts without spaces a letter is one.
fn words(text: &str) -> Vec<u64> {
    tokens(&fold(text), |_| false)
}

/// Hashes of the tokens of code: names, numbers, and every other character by itself; white space says nothing.
fn code_tokens(code: &str) -> Vec<u64> {
    tokens(code, |c| !c.is_whitespace())
}

/// Runs of word characters, and of the others those that `counts`.
fn tokens(text: &str, counts: fn(char) -> bool) -> Vec<u64> {
    let mut tokens = Vec::new();
    let mut begin = None;
    for (at, c) in text.char_indices() {
        if is_word(c) {
            begin.get_or_insert(at);
            continue;
        }
        tokens.extend(begin.take().and_then(|begin| text.get(begin..at)).map(hash));
        if is_unspaced(c) || counts(c) {
            tokens.push(hash(c));
        }
    }
    tokens.extend(begin.and_then(|begin| text.get(begin..)).map(hash));
    tokens
}

/// The same in every run of this program, which is as long as it is kept.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn unreadable(path: &Path, cause: &io::Error) -> SafetyError {
    SafetyError::Storage(format!(
        "`content_safety.protected.dir`: cannot read `{}`: {cause}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POEM: &str = "It was on a bright and windy morning in the old harbour that the ferry left without her captain.";
    const CODE_FILE: &str = "fn gcd(mut a: u64, mut b: u64) -> u64 {\n    while b != 0 {\n        (a, b) = (b, a % b);\n    }\n    a\n}\n";

    fn write(dir: &Path, file: &str, text: &str) {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn config(dir: &Path) -> ProtectedConfig {
        let dir = dir.display().to_string();
        ProtectedConfig { dir, text_words: 8, code_tokens: 20, bytes: 1 << 20 }
    }

    fn load(files: &[(&str, &str)]) -> Result<Protected, SafetyError> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            write(dir.path(), file, text);
        }
        Protected::load(&config(dir.path()))
    }

    #[test]
    fn a_passage_is_found_whatever_its_case_and_punctuation() {
        let protected = load(&[("text/poem.txt", POEM)]).unwrap();
        let detects = |text: &str| protected.detects_text(text).unwrap();
        assert!(detects("He wrote: BRIGHT AND WINDY — morning, in the old harbour; and more."));
        assert!(!detects("bright and windy morning in the new harbour that the ferry"));
        // Seven words in a row are no passage here.
        assert!(!detects("bright and windy morning in the old"));
    }

    #[test]
    fn code_is_found_however_it_is_laid_out_and_cited() {
        let citation = r#"{"license": "MIT", "sourceUrls": ["https://example.org/gcd"]}"#;
        let files = [
            ("code/math/gcd.rs", CODE_FILE),
            ("code/math/gcd.rs.citation.json", citation),
            ("code/copy.rs", CODE_FILE),
        ];
        let protected = load(&files).unwrap();
        let found = protected.detects_code(&CODE_FILE.replace('\n', " ")).unwrap();
        let urls = vec!["https://example.org/gcd".to_owned()];
        assert_eq!(
            found,
            [
                Citation { license: "MIT".into(), source_urls: urls },
                Citation { license: NO_LICENSE.into(), source_urls: Vec::new() }
            ]
        );
        let renamed = CODE_FILE.replace('a', "x").replace('b', "y");
        assert_eq!(protected.detects_code(&renamed).unwrap(), []);
    }

    #[test]
    fn scripts_without_spaces_count_letters() {
        let protected = load(&[("text/a.txt", "春眠不覚暁処処聞啼鳥夜来風雨声")]).unwrap();
        assert!(protected.detects_text("「処処聞啼鳥夜来風」").unwrap());
        assert!(!protected.detects_text("「処処聞啼鳥」").unwrap());
    }

    #[test]
    fn where_there_is_nothing_to_compare_with_no_answer_pretends_there_is() {
        let protected = load(&[("text/poem.txt", POEM)]).unwrap();
        let refused = protected.detects_code("x").unwrap_err().to_string();
        assert!(refused.contains("content_safety.protected.dir"), "{refused}");
        assert!(Protected::default().detects_text("x").is_err());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let citation = [("code/a.rs", "x"), ("code/a.rs.citation.json", "{}")];
        assert!(load(&citation).unwrap_err().to_string().contains("a.rs.citation.json"));
        let dir = tempfile::tempdir().unwrap();
        let missing = Protected::load(&config(&dir.path().join("nowhere"))).unwrap_err();
        assert!(missing.to_string().contains("nowhere"));
        write(dir.path(), "text/large.txt", POEM);
        let small = ProtectedConfig { bytes: 10, ..config(dir.path()) };
        let refused = Protected::load(&small).unwrap_err().to_string();
        assert!(refused.contains("large.txt") && refused.contains("protected.bytes"), "{refused}");
    }
}
