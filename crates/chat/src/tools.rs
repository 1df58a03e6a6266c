//! Tool calls out of generated text: bare JSON, fenced JSON, or `<tool_call>` tags, whose `name` is a declared tool.
//!
//! Separate because it is pure and must be right for every way of cutting the text. The invariant: text that may be a
//! call is held back until that is decided, and text that is none comes out unchanged.

use crate::text::overlap;
use serde_json::{Map, Value};

/// Tags around a call, as most templates ask for them.
const OPEN_TAG: &str = "<tool_call>";
const CLOSE_TAG: &str = "</tool_call>";
/// Fence around a call, with or without one of the languages below.
const FENCE: &str = "```";
/// Languages of a fence that may hold a call.
const LANGUAGES: [&str; 4] = ["", "json", "tool_call", "tool_code"];
/// The first key of an object that may be a call; any other ends the waiting at once.
const FIRST_KEYS: [&str; 6] = ["name", "arguments", "parameters", "function", "type", "id"];
/// More than this is not held back: no real call is so long.
const MOST_HELD: usize = 256 * 1024;

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Text that is no call.
    Text(String),
    /// A call of a declared tool.
    Call {
        /// The tool.
        name: String,
        /// JSON as text; incomplete only when the model was cut off.
        arguments: String,
    },
}

/// Which calls are expected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Names of the declared tools.
    pub(crate) names: Vec<String>,
    /// A grammar holds the model to a call: all text is one.
    pub(crate) forced: bool,
    /// Calls that one answer may hold.
    pub(crate) most: usize,
}

/// Finds calls in text that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Scanner {
    expected: Expected,
    held: String,
    /// Nothing but white space and calls so far: only here bare JSON may be a call.
    at_start: bool,
    calls: usize,
    /// What closes a fence or tag that holds several calls and has been entered; empty outside.
    left_open: &'static str,
}

/// How the text at the front of `held` may continue.
#[derive(Debug)]
enum Front {
    /// So many bytes are text.
    Text(usize),
    /// So many bytes are these calls; what is around them is closed later by the last, if that is not empty.
    Calls(usize, Vec<Found>, &'static str),
    /// So many bytes close what was left open.
    Close(usize),
    /// It depends on what follows.
    Undecided,
}

impl Scanner {
    pub(crate) fn new(expected: Expected) -> Self {
        Self { expected, held: String::new(), at_start: true, calls: 0, left_open: "" }
    }

    /// Calls found so far.
    pub(crate) const fn calls(&self) -> usize {
        self.calls
    }

    /// As many calls as one answer may hold: what follows is ignored and generation may end.
    pub(crate) const fn is_full(&self) -> bool {
        self.calls >= self.expected.most
    }

    /// Takes the next text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Found> {
        self.held.push_str(text);
        self.scan(false)
    }

    /// What was held back when the text ends.
    pub(crate) fn finish(&mut self) -> Vec<Found> {
        let mut found = self.scan(true);
        let rest = std::mem::take(&mut self.held);
        if self.is_full() || (self.calls > 0 && rest.trim().is_empty()) {
            return found;
        }
        if self.expected.forced {
            found.extend(partial_call(&rest, &self.expected.names));
        } else if !rest.is_empty() {
            found.push(Found::Text(rest));
        }
        found
    }

    fn scan(&mut self, last: bool) -> Vec<Found> {
        let mut found = Vec::new();
        while !self.held.is_empty() && !self.is_full() {
            match self.front(last) {
                Front::Undecided if self.held.len() <= MOST_HELD => break,
                Front::Undecided => self.release(self.held.len(), &mut found),
                Front::Text(bytes) => self.release(bytes, &mut found),
                Front::Close(bytes) => {
                    self.held.drain(..bytes);
                    self.left_open = "";
                }
                Front::Calls(bytes, calls, left_open) => {
                    self.held.drain(..bytes);
                    self.at_start = true;
                    if !left_open.is_empty() {
                        self.left_open = left_open;
                    }
                    let room = self.expected.most - self.calls;
                    self.calls += calls.len().min(room);
                    found.extend(calls.into_iter().take(room));
                }
            }
        }
        if self.is_full() {
            self.held.clear();
        }
        found
    }

    fn release(&mut self, bytes: usize, found: &mut Vec<Found>) {
        let text: String = self.held.drain(..bytes).collect();
        if !text.trim().is_empty() {
            self.at_start = false;
            self.left_open = "";
        }
        match found.last_mut() {
            Some(Found::Text(before)) => before.push_str(&text),
            Some(Found::Call { .. }) | None => found.push(Found::Text(text)),
        }
    }

    /// What the held text begins with.
    fn front(&self, last: bool) -> Front {
        let space = self.held.len() - self.held.trim_start().len();
        let text = &self.held[space..];
        if !self.left_open.is_empty() && !text.is_empty() {
            if text.starts_with(self.left_open) {
                return Front::Close(space + self.left_open.len());
            }
            if !last && self.left_open.starts_with(text) {
                return Front::Undecided;
            }
        }
        if self.at_start {
            if text.is_empty() {
                return Front::Undecided;
            }
            if text.starts_with(['{', '[']) {
                return self.candidate(space, space, "", last);
            }
        }
        if text.starts_with(OPEN_TAG) {
            return self.candidate(space, space + OPEN_TAG.len(), CLOSE_TAG, last);
        }
        if let Some(after) = text.strip_prefix(FENCE) {
            return self.fenced(space, after, last);
        }
        self.plain_text(space)
    }

    /// A fence: a candidate when its language may hold a call.
    fn fenced(&self, space: usize, after: &str, last: bool) -> Front {
        let fence = space + FENCE.len();
        let word = after.len()
            - after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_').len();
        let language = &after[..word];
        let whole = word < after.len();
        let fits = |l: &str| if whole { l == language } else { l.starts_with(language) };
        if !LANGUAGES.iter().any(|l| fits(l)) {
            return Front::Text(fence);
        }
        if !whole {
            return if last { Front::Text(fence) } else { Front::Undecided };
        }
        self.candidate(space, fence + word, FENCE, last)
    }

    /// JSON that begins after `json` bytes and is closed by `close`; `skip` bytes before it are white space.
    fn candidate(&self, skip: usize, json: usize, close: &'static str, last: bool) -> Front {
        // When it is no call, one byte of it is enough to go on with the search behind it.
        let no_call =
            Front::Text(skip + self.held[skip..].chars().next().map_or(0, char::len_utf8));
        let inside = &self.held[json..];
        let start = json + inside.len() - inside.trim_start().len();
        let value = &self.held[start..];
        if !may_be_call(value) {
            return no_call;
        }
        let Some(length) = json_length(value) else {
            // What a grammar forces is never text: `finish` makes of it what it can.
            return if last && !self.expected.forced { no_call } else { Front::Undecided };
        };
        let Some(calls) = calls_in(&value[..length], &self.expected.names) else { return no_call };
        let rest = value[length..].trim_start();
        let end = self.held.len() - rest.len();
        if close.is_empty() {
            // The white space behind it stays: a call or text may follow.
            return Front::Calls(start + length, calls, "");
        }
        if rest.starts_with(close) {
            return Front::Calls(end + close.len(), calls, "");
        }
        if !last && close.starts_with(rest) {
            return Front::Undecided;
        }
        // The tag is closed by something else, or not at all: several calls in one tag, or the end of the answer.
        Front::Calls(start + length, calls, close)
    }

    /// Text up to what may be the beginning of a call.
    fn plain_text(&self, space: usize) -> Front {
        let from = space + self.held[space..].chars().next().map_or(0, char::len_utf8);
        let next = [OPEN_TAG, FENCE].iter().filter_map(|s| self.held[from..].find(s)).min();
        if let Some(at) = next {
            return Front::Text(from + at);
        }
        let keep = overlap(&self.held, OPEN_TAG).max(overlap(&self.held, FENCE));
        match self.held.len() - keep {
            0 => Front::Undecided,
            bytes => Front::Text(bytes),
        }
    }
}

/// Whether a beginning of JSON may become a call: its first key decides.
fn may_be_call(text: &str) -> bool {
    let text = text.strip_prefix('[').unwrap_or(text).trim_start();
    let Some(text) = text.strip_prefix('{') else { return text.is_empty() };
    let text = text.trim_start();
    let Some(text) = text.strip_prefix('"') else { return text.is_empty() };
    match text.split_once('"') {
        Some((key, _)) => FIRST_KEYS.contains(&key),
        None => FIRST_KEYS.iter().any(|key| key.starts_with(text)),
    }
}

/// Length of the JSON object or array that `text` begins with; none while it is incomplete.
fn json_length(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The calls that `json` is; none when it is anything else.
fn calls_in(json: &str, names: &[String]) -> Option<Vec<Found>> {
    let calls = match serde_json::from_str(json).ok()? {
        Value::Array(items) => {
            items.iter().map(|v| call(v.as_object()?, names)).collect::<Option<Vec<_>>>()?
        }
        Value::Object(fields) => vec![call(&fields, names)?],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    (!calls.is_empty()).then_some(calls)
}

fn call(fields: &Map<String, Value>, names: &[String]) -> Option<Found> {
    // `{"type": "function", "function": {"name": .., "arguments": ..}}` is the form of the API itself.
    let fields = fields.get("function").and_then(Value::as_object).unwrap_or(fields);
    let name = fields.get("name").or_else(|| fields.get("function"))?.as_str()?;
    if !names.iter().any(|known| known == name) {
        return None;
    }
    let arguments = match fields.get("arguments").or_else(|| fields.get("parameters")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "{}".to_owned(),
        Some(value) => value.to_string(),
    };
    Some(Found::Call { name: name.to_owned(), arguments })
}

/// The call that a grammar began to force when the model was cut off; none when not even its name is whole.
fn partial_call(text: &str, names: &[String]) -> Option<Found> {
    let after = text
        .split_once("\"name\"")?
        .1
        .trim_start()
        .strip_prefix(':')?
        .trim_start()
        .strip_prefix('"')?;
    let (name, after) = after.split_once('"')?;
    let name = names.iter().find(|known| *known == name)?.clone();
    let arguments =
        after.split_once("\"arguments\"").and_then(|(_, a)| a.trim_start().strip_prefix(':'));
    Some(Found::Call { name, arguments: arguments.unwrap_or_default().trim_start().to_owned() })
}

#[cfg(test)]
mod tests;
