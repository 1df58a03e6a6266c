//! Readers of JSON values that know where they are: every failure names its field and what was expected there.
//!
//! The values are moved, never copied: a request with a megabyte of base64 is held once. A path is a chain of borrowed
//! steps, so nothing is allocated for it until something is wrong.

use super::Fields;
use crate::{ErrorCode, Fault};
use serde_json::Value;
use std::fmt::{self, Write as _};
use std::ops::RangeInclusive;

/// Longest name or word of the client that an error message repeats, in characters.
const LONGEST_ECHO: usize = 64;
/// Largest magnitude at which a float still holds every integer: 2^53.
const EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// Where in the body a value stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// The body itself.
    Root,
    /// A property.
    Key(&'a At<'a>, &'a str),
    /// An element, from 0.
    Index(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    /// The property `name` of this object.
    pub(super) const fn key(&'a self, name: &'a str) -> Self {
        Self::Key(self, name)
    }

    /// Element `index` of this array.
    pub(super) const fn index(&'a self, index: usize) -> Self {
        Self::Index(self, index)
    }

    /// A fault about this field; the message follows its name: "must be a string".
    pub(super) fn fault(&self, message: impl fmt::Display) -> Fault {
        match self {
            Self::Root => {
                Fault::new(ErrorCode::InvalidRequest, format!("the request body {message}"))
            }
            Self::Key(..) | Self::Index(..) => {
                Fault::invalid(self.to_string(), format!("`{self}` {message}"))
            }
        }
    }

    /// A fault about a value of the wrong type.
    pub(super) fn expected(&self, what: &str, found: &Value) -> Fault {
        self.fault(format_args!("must be {what}, found {}", kind(found)))
    }

    /// The fault of a missing property of this object, in the API's own words.
    pub(super) fn missing(&self, name: &str) -> Fault {
        Fault::invalid(self.key(name).to_string(), format!("'{name}' is a required property"))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, step): (&At<'_>, &dyn fmt::Display) = match self {
            Self::Root => return Ok(()),
            Self::Key(parent, name) => (parent, name),
            Self::Index(parent, index) => (parent, index),
        };
        if !matches!(parent, At::Root) {
            write!(f, "{parent}.")?;
        }
        step.fmt(f)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A client's own word, fit for an error message: short and without control characters.
pub(super) fn shorten(word: &str) -> String {
    let mut out: String =
        word.chars().take(LONGEST_ECHO).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if word.chars().nth(LONGEST_ECHO).is_some() {
        out.push('…');
    }
    out
}

/// Parses a body that must be an object. serde_json bounds the depth at 128, so the stack is safe.
pub(super) fn object(body: &[u8]) -> Result<Fields, Fault> {
    let value: Value = serde_json::from_slice(body).map_err(|cause| {
        Fault::new(ErrorCode::InvalidRequest, format!("Invalid JSON in request body: {cause}"))
    })?;
    let Value::Object(fields) = value else {
        return Err(At::Root.expected("a JSON object", &value));
    };
    Ok(fields)
}

/// An object that is being read; what is left in it afterwards was not asked for.
#[derive(Debug)]
pub(super) struct Object<'a> {
    at: At<'a>,
    fields: Fields,
}

impl<'a> Object<'a> {
    /// The body.
    pub(super) const fn root(fields: Fields) -> Self {
        Self { at: At::Root, fields }
    }

    /// An object within the body.
    pub(super) fn read(value: Value, at: At<'a>) -> Result<Self, Fault> {
        let Value::Object(fields) = value else {
            return Err(at.expected("an object", &value));
        };
        Ok(Self { at, fields })
    }

    /// A property that may be absent; null is absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value, At<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        match self.fields.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value, self.at.key(name)).map(Some),
        }
    }

    /// A property that must be there; null counts as missing.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Value, At<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.optional(name, read)?.ok_or_else(|| self.at.missing(name))
    }

    /// What was not asked for, nulls left out.
    pub(super) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        self.fields.into_iter().filter(|(_, value)| !value.is_null())
    }
}

/// Any string.
pub(super) fn string(value: Value, at: At<'_>) -> Result<String, Fault> {
    let Value::String(text) = value else {
        return Err(at.expected("a string", &value));
    };
    Ok(text)
}

/// A string that says something.
pub(super) fn filled(value: Value, at: At<'_>) -> Result<String, Fault> {
    let text = string(value, at)?;
    if text.is_empty() { Err(at.fault("must not be empty")) } else { Ok(text) }
}

/// A string of so many characters.
pub(super) fn sized(
    length: RangeInclusive<usize>,
) -> impl Fn(Value, At<'_>) -> Result<String, Fault> {
    move |value, at| {
        let text = string(value, at)?;
        if length.contains(&text.chars().count()) {
            return Ok(text);
        }
        let (low, high) = (length.start(), length.end());
        Err(at.fault(format_args!("must have {low} to {high} characters")))
    }
}

/// true or false.
#[expect(clippy::needless_pass_by_value, reason = "a reader like the others, which take values")]
pub(super) fn boolean(value: Value, at: At<'_>) -> Result<bool, Fault> {
    let Value::Bool(flag) = value else {
        return Err(at.expected("a boolean", &value));
    };
    Ok(flag)
}

/// A number in a range.
pub(super) fn number(range: RangeInclusive<f32>) -> impl Fn(Value, At<'_>) -> Result<f32, Fault> {
    move |value, at| {
        let (low, high) = (range.start(), range.end());
        let what = || format!("a number from {low} to {high}");
        let Value::Number(number) = &value else {
            return Err(at.expected(&what(), &value));
        };
        let wide = number.as_f64().unwrap_or(f64::NAN);
        if wide >= f64::from(*low) && wide <= f64::from(*high) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "within a range of small numbers"
            )]
            return Ok(wide as f32);
        }
        Err(at.fault(format_args!("must be {}, found {number}", what())))
    }
}

/// An integer of 64 bits in a range; `3.0` is 3.
pub(super) fn integer(range: RangeInclusive<i64>) -> impl Fn(Value, At<'_>) -> Result<i64, Fault> {
    move |value, at| {
        let what = || match (*range.start(), *range.end()) {
            (i64::MIN, i64::MAX) => "an integer of 64 bits".to_owned(),
            (low, high) => format!("an integer from {low} to {high}"),
        };
        let Value::Number(number) = &value else {
            return Err(at.expected(&what(), &value));
        };
        let whole = number.as_i64().or_else(|| number.as_f64().and_then(whole_float));
        match whole.filter(|whole| range.contains(whole)) {
            Some(whole) => Ok(whole),
            None => Err(at.fault(format_args!("must be {}, found {number}", what()))),
        }
    }
}

fn whole_float(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
    (number.fract() == 0.0 && number.abs() <= EXACT_FLOAT).then_some(number as i64)
}

/// An integer of 32 bits, not negative, in a range.
pub(super) fn count(range: RangeInclusive<u32>) -> impl Fn(Value, At<'_>) -> Result<u32, Fault> {
    let read = integer(i64::from(*range.start())..=i64::from(*range.end()));
    move |value, at| {
        let whole = read(value, at)?;
        u32::try_from(whole).map_err(|_| at.fault("is out of range"))
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(Value, At<'_>) -> Result<T, Fault> {
    move |value, at| {
        let what = || format!("one of {}", listed(words.iter().map(|(word, _)| *word)));
        let Value::String(found) = &value else {
            return Err(at.expected(&what(), &value));
        };
        let known = words.iter().find(|(word, _)| word == found);
        known
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| at.fault(format_args!("must be {}, found `{}`", what(), shorten(found))))
    }
}

/// Words for a message: `a`, `b`, `c`.
pub(super) fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let mut out = String::new();
    for word in words {
        let comma = if out.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}`{word}`");
    }
    out
}

/// An array of so many elements.
pub(super) fn list<T>(
    length: RangeInclusive<usize>,
    read: impl Fn(Value, At<'_>) -> Result<T, Fault>,
) -> impl Fn(Value, At<'_>) -> Result<Vec<T>, Fault> {
    move |value, at| {
        let Value::Array(items) = value else {
            return Err(at.expected("an array", &value));
        };
        if !length.contains(&items.len()) {
            return Err(wrong_length(&length, items.len(), at));
        }
        items.into_iter().enumerate().map(|(i, item)| read(item, at.index(i))).collect()
    }
}

fn wrong_length(length: &RangeInclusive<usize>, found: usize, at: At<'_>) -> Fault {
    if found == 0 {
        return at.fault("must not be empty");
    }
    at.fault(format_args!("must have at most {} items, found {found}", length.end()))
}

/// A JSON object kept as it is.
pub(super) fn any_object(value: Value, at: At<'_>) -> Result<Value, Fault> {
    if value.is_object() { Ok(value) } else { Err(at.expected("an object", &value)) }
}
