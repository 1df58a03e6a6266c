//! The keywords of a schema that say something about one value: its type, its bounds, its fixed values.
//!
//! Separate because none of them needs the document around it.

use super::{LONGEST_NAME, Mode, Path, Problem, problem, unsupported};
use serde_json::{Map, Value, json};

/// Keywords without influence on what is valid.
pub(super) const ANNOTATIONS: [&str; 16] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "discriminator",
];
/// Keywords that are understood beside `type`.
pub(super) const STRUCTURE: [&str; 17] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "nullable",
    "strict",
];

/// Most values of one enumeration.
const MOST_VALUES: usize = 1000;
/// Largest count of items or characters; the grammar parser takes no more than 2000 repetitions in all.
const LARGEST_COUNT: u64 = 1000;
/// Largest bound of an integer: the converter writes 15 digits at most.
const LARGEST_BOUND: f64 = 1e15;

pub(super) fn string(
    fields: &Map<String, Value>,
    mode: Mode,
    path: &Path,
) -> Result<Value, Problem> {
    let mut out = json!({ "type": "string" });
    counts(&mut out, fields, ["minLength", "maxLength"], (mode, path))?;
    if let Some(format) = fields.get("format").and_then(Value::as_str) {
        // Other formats are annotations, as the specification has it.
        if ["date", "time", "date-time", "uuid"].contains(&format) {
            out["format"] = json!(format);
        }
    }
    Ok(out)
}

pub(super) fn integer(
    fields: &Map<String, Value>,
    mode: Mode,
    path: &Path,
) -> Result<Value, Problem> {
    let bound = |key: &str| match fields.get(key) {
        None | Some(Value::Bool(_)) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if number.abs() <= LARGEST_BOUND => Ok(Some(number)),
            Some(_) if mode == Mode::Loose => Ok(None),
            Some(_) => {
                let message =
                    format!("has a `{key}` of more than 15 digits, which is not supported");
                Err(unsupported(&path.text, message))
            }
            None => Err(problem(&path.text, format!("`{key}` must be a number"))),
        },
    };
    let above = bound("exclusiveMinimum")?.map(|b| b.floor() + 1.0);
    let below = bound("exclusiveMaximum")?.map(|b| b.ceil() - 1.0);
    let least = larger(bound("minimum")?.map(f64::ceil), above);
    let most = larger(bound("maximum")?.map(|b| -b.floor()), below.map(|b| -b)).map(|b| -b);
    if least.zip(most).is_some_and(|(least, most)| least > most) {
        return Err(problem(&path.text, "admits no integer: its minimum is above its maximum"));
    }
    let mut out = json!({ "type": "integer" });
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers of at most 15 digits")]
    for (key, value) in [("minimum", least), ("maximum", most)] {
        if let Some(value) = value {
            out[key] = json!(value as i64);
        }
    }
    Ok(out)
}

/// Whether a property name may stand in a character class.
pub(super) fn is_plain(name: &str) -> bool {
    name.chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | ' ' | '.' | ':' | '/' | '$' | '@'))
}

fn larger(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

pub(super) fn counts(
    out: &mut Value,
    fields: &Map<String, Value>,
    keys: [&str; 2],
    (mode, path): (Mode, &Path),
) -> Result<(), Problem> {
    let mut limits = [None, None];
    for (key, limit) in keys.into_iter().zip(&mut limits) {
        let Some(value) = fields.get(key) else { continue };
        let count = value.as_u64().ok_or_else(|| {
            problem(&path.text, format!("`{key}` must be an integer that is not negative"))
        })?;
        if count > LARGEST_COUNT {
            if mode == Mode::Loose {
                continue;
            }
            let message = format!("has a `{key}` above {LARGEST_COUNT}, which is not supported");
            return Err(unsupported(&path.text, message));
        }
        out[key] = json!(count);
        *limit = Some(count);
    }
    match limits {
        [Some(least), Some(most)] if least > most => {
            Err(problem(&path.text, format!("`{}` is above `{}`", keys[0], keys[1])))
        }
        _ => Ok(()),
    }
}

pub(super) fn fixed(values: &[Value], path: &Path) -> Result<Value, Problem> {
    let long = values.iter().any(|v| v.to_string().len() > LONGEST_NAME);
    if values.is_empty() || values.len() > MOST_VALUES || long {
        let message = format!(
            "`enum` and `const` take 1 to {MOST_VALUES} values of at most {LONGEST_NAME} bytes"
        );
        return Err(problem(&path.text, message));
    }
    Ok(json!({ "enum": values }))
}

/// The types to write out; without `type` the other keywords tell.
pub(super) fn types_of<'a>(
    fields: &'a Map<String, Value>,
    path: &Path,
) -> Result<Vec<&'a str>, Problem> {
    let has = |keys: &[&str]| keys.iter().any(|k| fields.contains_key(*k));
    let types = match fields.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        Some(_) => Vec::new(),
        None if has(&["properties", "required", "additionalProperties"]) => vec!["object"],
        None if has(&["items", "prefixItems", "minItems", "maxItems"]) => vec!["array"],
        None if has(&["minLength", "maxLength", "format"]) => vec!["string"],
        None if has(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]) => {
            vec!["number"]
        }
        None => return Ok(Vec::new()),
    };
    let repeated = types.iter().enumerate().any(|(i, t)| types[..i].contains(t));
    if types.is_empty() || repeated {
        return Err(problem(&path.text, "`type` must be a type or a list of different types"));
    }
    Ok(types)
}

pub(super) fn required_of(
    fields: &Map<String, Value>,
    properties: &Map<String, Value>,
    mode: Mode,
    path: &Path,
) -> Result<Vec<Value>, Problem> {
    let Some(required) = fields.get("required") else { return Ok(Vec::new()) };
    let names =
        required.as_array().ok_or_else(|| problem(&path.text, "`required` must be a list"))?;
    let mut known = Vec::with_capacity(names.len());
    for name in names {
        match name.as_str() {
            Some(text) if properties.contains_key(text) => known.push(name.clone()),
            Some(text) if mode == Mode::Exact => {
                return Err(problem(
                    &path.text,
                    format!("requires `{text}`, which is no property of it"),
                ));
            }
            Some(_) => {}
            None => return Err(problem(&path.text, "`required` must be a list of names")),
        }
    }
    Ok(known)
}
