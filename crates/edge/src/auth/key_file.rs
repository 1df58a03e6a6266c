//! The file with more keys: with names, hashes, scopes and an end (`.toml`), or one plain key a line.
//!
//! Read as a whole or not at all: a file with one mistake changes nothing, and the mistake is named. Contents are compared, not
//! times, because a mounted secret may change within the second and keep its time.

use crate::auth::caller::{Area, Caller, Scope};
use crate::auth::keys::{Hash, Key, Keys};
use crate::globs::Globs;
use crate::limit::RatesConfig;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use toml::value::{Datetime, Offset};

/// Ending of files that hold keys with names.
const TOML: &str = "toml";
/// Longest name of a key: it stands in logs and in Redis.
const LONGEST_NAME: usize = 64;
/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Why a key file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Not there, or not ours to read.
    #[error("cannot read `{path}`: {cause}")]
    Read {
        /// As configured.
        path: String,
        /// From the system.
        cause: std::io::Error,
    },
    /// Something in it.
    #[error("`{path}`: {message}")]
    Content {
        /// As configured.
        path: String,
        /// What, and what was expected. Holds no key.
        message: String,
    },
}

/// A file with keys, and what it held last.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    rates: RatesConfig,
    last: Mutex<Option<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    routes: Option<Vec<Area>>,
    deployments: Option<Globs>,
    expires: Option<Datetime>,
    class: Option<String>,
    #[serde(default)]
    shadow: bool,
}

impl KeyFile {
    /// A file whose keys may name the classes of `rates`.
    pub(super) fn new(path: &str, rates: RatesConfig) -> Self {
        Self { path: path.into(), rates, last: Mutex::default() }
    }

    /// The keys in it now.
    pub(super) fn load(&self) -> Result<Keys, KeyFileError> {
        let text = std::fs::read_to_string(&self.path).map_err(|cause| self.unreadable(cause))?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.clone());
        self.parse(&text)
    }

    /// The keys in it, if it is not what it was when somebody last looked.
    pub(super) async fn changed(&self) -> Option<Result<Keys, KeyFileError>> {
        let read = tokio::fs::read_to_string(&self.path).await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = read.as_ref().ok().cloned();
        if *last == now {
            return None;
        }
        *last = now;
        Some(match read {
            Ok(text) => self.parse(&text),
            Err(cause) => Err(self.unreadable(cause)),
        })
    }

    fn parse(&self, text: &str) -> Result<Keys, KeyFileError> {
        let keys = if self.path.extension().is_some_and(|e| e.eq_ignore_ascii_case(TOML)) {
            document(text, &self.rates)
        } else {
            let lines = text.lines().map(str::trim);
            let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            Ok(keys.map(Key::plain).collect())
        };
        let keys = keys.and_then(|keys: Vec<Key>| {
            if keys.is_empty() { Err("holds no key".to_owned()) } else { Ok(Keys::new(keys)) }
        });
        keys.map_err(|message| KeyFileError::Content { path: shown(&self.path), message })
    }

    fn unreadable(&self, cause: std::io::Error) -> KeyFileError {
        KeyFileError::Read { path: shown(&self.path), cause }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn document(text: &str, rates: &RatesConfig) -> Result<Vec<Key>, String> {
    // The library's whole message quotes the line, and somebody may have put a key into it.
    let document: Document = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |at| text[..at.start].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })?;
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut keys = Vec::new();
    for entry in document.keys {
        let name = entry.name.clone();
        let key = key(entry, rates).map_err(|problem| format!("key `{name}`: {problem}"))?;
        if !hashes.insert(key.hash) {
            return Err(format!("key `{name}`: another key has the same `sha256`"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("key `{name}`: another key has the same name"));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(entry: Entry, rates: &RatesConfig) -> Result<Key, String> {
    let Entry { name, sha256, routes, deployments, expires, class, shadow } = entry;
    if !is_key_name(&name) {
        return Err(format!(
            "`name` must be 1 to {LONGEST_NAME} letters, digits, dots, dashes or underscores"
        ));
    }
    let Some(hash) = unhexadecimal(&sha256) else {
        return Err("`sha256` must be 64 hexadecimal digits; `koine keys new` prints them".into());
    };
    if routes.as_ref().is_some_and(Vec::is_empty) {
        return Err("`routes` must name at least one; leave it out for all".to_owned());
    }
    if let Some(class) = class.as_ref().filter(|class| !rates.knows(class)) {
        return Err(format!("`class`: `{class}` is not among `edge.rates.classes`"));
    }
    let scope = Scope { areas: routes, deployments };
    let mut key = Key::named(Caller::new(name, class, vec![scope]).in_shadow(shadow), hash);
    if let Some(end) = expires {
        let message =
            "`expires` must be a date or a time with its zone, such as 2030-01-01T00:00:00Z";
        key.expires = Some(unix_seconds(&end).ok_or(message)?);
    }
    Ok(key)
}

/// Whether `name` may be the name of a key.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(letter)
}

fn unhexadecimal(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(hash)
}

/// A date is its first second in UTC; a time without a zone is none.
fn unix_seconds(at: &Datetime) -> Option<i64> {
    let date = at.date?;
    let seconds = match (at.time, at.offset) {
        (None, _) => 0,
        (Some(_), None) => return None,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                Offset::Z => 0,
                Offset::Custom { minutes } => i64::from(minutes),
            };
            let (hour, minute) = (i64::from(time.hour), i64::from(time.minute) - minutes);
            (hour * 60 + minute) * 60 + i64::from(time.second.unwrap_or(0))
        }
    };
    // Days since 1970 of a date in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms",
    // `days_from_civil`): years begin in March, so that the leap day is the last of one.
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * DAY + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash_of;
    use crate::auth::keys::Found;
    use chassis::config::{Sources, load};

    fn rates() -> RatesConfig {
        let env = vec![("EDGE__RATES__CLASSES".to_owned(), "[{name='standard'}]".to_owned())];
        let sources = Sources { file: None, env };
        load::<crate::Config>("edge", crate::DEFAULTS, &sources).unwrap().rates
    }

    fn read(text: &str) -> Result<Vec<Key>, String> {
        document(text, &rates())
    }

    fn entry(more: &str) -> String {
        format!("[[keys]]\nname = \"team-a\"\nsha256 = \"{}\"\n{more}\n", hash_of("secret"))
    }

    #[test]
    fn a_key_has_a_name_a_hash_and_what_it_may_do() {
        let text = entry(
            "routes = ['chat', 'content-safety']\ndeployments = ['gpt-*']\nclass = 'standard'",
        );
        let keys = Keys::new(read(&text).unwrap());
        let Found::Valid(caller) = keys.find(b"secret") else { panic!("not found") };
        assert_eq!((caller.name.as_str(), caller.class.as_deref()), ("team-a", Some("standard")));
        assert!(matches!(keys.find(b"other"), Found::Unknown));
    }

    #[test]
    fn a_key_ends_when_it_says() {
        for (end, valid) in [
            ("2001-01-01", false),
            ("2999-01-01T00:00:00Z", true),
            ("2001-01-01T00:00:00+02:00", false),
        ] {
            let keys = Keys::new(read(&entry(&format!("expires = {end}"))).unwrap());
            assert_eq!(matches!(keys.find(b"secret"), Found::Valid(_)), valid, "{end}");
            assert_eq!(matches!(keys.find(b"secret"), Found::Expired), !valid, "{end}");
        }
    }

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
            ("2025-01-01T01:30:00+01:30", 1_735_689_600),
            ("2024-12-31T19:00:00-05:00", 1_735_689_600),
        ] {
            assert_eq!(unix_seconds(&text.parse().unwrap()), Some(seconds), "{text}");
        }
        assert_eq!(unix_seconds(&"2024-12-31T19:00:00".parse().unwrap()), None);
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        for (text, expected) in [
            (entry("class = 'gold'"), "`gold` is not among"),
            (entry("routes = []"), "leave it out for all"),
            (entry("routes = ['everything']"), "line 4"),
            (entry("expires = 2030-01-01T00:00:00"), "with its zone"),
            (entry("deployments = []"), "at least one deployment"),
            (entry("scope = 'x'"), "scope"),
            (entry("").replace("team-a", "team a"), "`name` must be"),
            (entry("").replace(&hash_of("secret"), "abc"), "64 hexadecimal digits"),
            (entry("") + &entry("").replace("team-a", "b"), "the same `sha256`"),
            (entry("") + &entry("").replace(&hash_of("secret"), &hash_of("x")), "the same name"),
        ] {
            let message = read(&text).unwrap_err();
            assert!(message.contains(expected), "{expected} is missing in: {message}");
        }
    }

    #[test]
    fn a_key_that_stands_in_the_wrong_place_is_not_repeated() {
        let message = read("[[keys]]\nname = \"a\"\nsha256 = hush-hush\n").unwrap_err();
        assert!(message.contains("line 3") && !message.contains("hush"), "{message}");
    }
}
