//! JSON Schemas of requests, checked and rewritten into the part of the language that llama.cpp's converter knows.
//!
//! Separate because it is pure and stands between clients and C++: the converter ignores what it does not know, recurses
//! without limit and can take exponential time, so everything that reaches it is bounded here and nothing is ignored
//! silently. References are resolved here and get names of our own, because the converter confuses similar ones.

mod keywords;

use keywords::{
    ANNOTATIONS, STRUCTURE, counts, fixed, integer, is_plain, required_of, string, types_of,
};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Deepest nesting; deeper answers are no use and cost stack in C++.
const DEEPEST: usize = 24;
/// Most nodes after unions of types are written out: milliseconds to convert.
const MOST_NODES: usize = 2000;
/// Most properties of one object: the converter's work grows with the cube of the optional ones.
const MOST_PROPERTIES: usize = 128;
/// Longest property name or fixed string in bytes: C++ regular expressions recurse over them.
const LONGEST_NAME: usize = 512;
/// Most ways to begin a value, through unions of unions: llama.cpp looks at each.
const MOST_BEGINNINGS: u64 = 4096;

/// What to do with a keyword that cannot be enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Refuse it by name: the answer is promised to fit.
    Exact,
    /// Leave it out: the answer fits the rest.
    Loose,
}

/// What is wrong with a schema, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Path within the schema, like `properties.a.items`; empty for the schema itself.
    pub(crate) path: String,
    /// What was expected.
    pub(crate) message: String,
    /// The schema is a right one, but this cannot be enforced.
    pub(crate) unsupported: bool,
}

/// Several schemas rewritten into one document whose definitions do not clash.
#[derive(Debug, Default)]
pub(crate) struct Document {
    definitions: Map<String, Value>,
    nodes: usize,
}

impl Document {
    /// Adds `schema`; the answer refers to it within the document.
    pub(crate) fn add(&mut self, schema: &Value, mode: Mode) -> Result<Value, Problem> {
        let mut rewriter = Rewriter {
            source: schema,
            mode,
            document: self,
            names: HashMap::new(),
            queue: Vec::new(),
        };
        let root = rewriter.rewrite(schema, &Path::default())?;
        while let Some((name, target, path)) = rewriter.queue.pop() {
            let definition = rewriter.rewrite(target, &path)?;
            rewriter.document.definitions.insert(name, definition);
        }
        Ok(root)
    }

    /// The document as one schema whose root is `root`, which may refer to what was added.
    pub(crate) fn finish(self, root: Value) -> Result<Value, Problem> {
        let mut known = HashMap::new();
        let mut total = beginnings(&root, &self.definitions, &mut known)?;
        for definition in self.definitions.values() {
            total = total.saturating_add(beginnings(definition, &self.definitions, &mut known)?);
        }
        if total > MOST_BEGINNINGS {
            return Err(unsupported("", "has too many nested alternatives"));
        }
        let Value::Object(mut fields) = root else { return Err(problem("", "must be an object")) };
        if !self.definitions.is_empty() {
            fields.insert("$defs".to_owned(), Value::Object(self.definitions));
        }
        Ok(Value::Object(fields))
    }
}

/// Where in the schema we are.
#[derive(Debug, Clone, Default)]
struct Path {
    text: String,
    depth: usize,
}

impl Path {
    fn join(&self, step: &str) -> Self {
        let text =
            if self.text.is_empty() { step.to_owned() } else { format!("{}.{step}", self.text) };
        Self { text, depth: self.depth + 1 }
    }
}

struct Rewriter<'a, 'd> {
    source: &'a Value,
    mode: Mode,
    document: &'d mut Document,
    names: HashMap<String, String>,
    queue: Vec<(String, &'a Value, Path)>,
}

impl<'a> Rewriter<'a, '_> {
    fn rewrite(&mut self, schema: &'a Value, path: &Path) -> Result<Value, Problem> {
        self.document.nodes += 1;
        if self.document.nodes > MOST_NODES {
            return Err(unsupported("", format!("has more than {MOST_NODES} nodes")));
        }
        if path.depth > DEEPEST {
            return Err(unsupported(
                &path.text,
                format!("is nested more than {DEEPEST} levels deep"),
            ));
        }
        let fields = match schema {
            Value::Bool(true) => return Ok(json!({})),
            Value::Object(fields) => fields,
            Value::Bool(false)
            | Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                return Err(problem(&path.text, "must be an object"));
            }
        };
        self.refuse_unknown(fields, path)?;
        if let Some(reference) = fields.get("$ref") {
            return self.reference(reference, path);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            if let Some(Value::Array(items)) = fields.get(key) {
                return self.alternatives(key, items, path);
            }
        }
        if let Some(value) = fields.get("const") {
            return fixed(std::slice::from_ref(value), path);
        }
        if let Some(values) = fields.get("enum") {
            let values =
                values.as_array().ok_or_else(|| problem(&path.text, "`enum` must be a list"))?;
            return fixed(values, path);
        }
        self.typed(fields, path)
    }

    /// Every keyword must be one that is enforced or one that means nothing.
    fn refuse_unknown(&self, fields: &Map<String, Value>, path: &Path) -> Result<(), Problem> {
        if self.mode == Mode::Loose {
            return Ok(());
        }
        let combined = ["$ref", "anyOf", "oneOf", "allOf", "const", "enum"]
            .into_iter()
            .find(|k| fields.contains_key(*k));
        for (key, value) in fields {
            let name = key.as_str();
            if ANNOTATIONS.contains(&name) || name.starts_with("x-") || Some(name) == combined {
                continue;
            }
            let harmless =
                (name == "uniqueItems" && value == &Value::Bool(false)) || name == "type";
            match combined {
                Some(other) if !harmless => {
                    return Err(unsupported(
                        &path.text,
                        format!("has `{name}` beside `{other}`, which is not supported"),
                    ));
                }
                Some(_) => {}
                None if harmless || STRUCTURE.contains(&name) => {}
                None => {
                    return Err(unsupported(
                        &path.text,
                        format!("has the keyword `{name}`, which is not supported"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn reference(&mut self, reference: &Value, path: &Path) -> Result<Value, Problem> {
        let mut pointer = text_of(reference, "$ref", path)?;
        let mut seen = Vec::new();
        let target = loop {
            let found = self.resolve(pointer, path)?;
            seen.push(pointer);
            match found.get("$ref") {
                Some(next) => pointer = text_of(next, "$ref", path)?,
                None => break found,
            }
            if seen.contains(&pointer) {
                return Err(problem(&path.text, format!("`$ref` `{pointer}` refers to itself")));
            }
        };
        if let Some(name) = self.names.get(pointer) {
            return Ok(json!({ "$ref": format!("#/$defs/{name}") }));
        }
        // The count of nodes grows over all schemas of the document, so no name comes twice.
        let name = format!("d{}", self.document.nodes);
        self.names.insert(pointer.to_owned(), name.clone());
        self.queue.push((name.clone(), target, Path { text: path.text.clone(), depth: 0 }));
        Ok(json!({ "$ref": format!("#/$defs/{name}") }))
    }

    fn resolve(&self, pointer: &str, path: &Path) -> Result<&'a Value, Problem> {
        let inside = pointer.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'));
        let inside = inside.ok_or_else(|| {
            problem(&path.text, format!("`$ref` `{pointer}` leaves the schema; use `#/$defs/...`"))
        })?;
        self.source
            .pointer(inside)
            .ok_or_else(|| problem(&path.text, format!("`$ref` `{pointer}` refers to nothing")))
    }

    fn alternatives(
        &mut self,
        key: &str,
        items: &'a [Value],
        path: &Path,
    ) -> Result<Value, Problem> {
        match items {
            [] => Err(problem(&path.text, format!("`{key}` must not be empty"))),
            [one] => self.rewrite(one, &path.join(&format!("{key}.0"))),
            _ if key != "allOf" => {
                let parts = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.rewrite(item, &path.join(&format!("{key}.{i}"))));
                Ok(json!({ "anyOf": parts.collect::<Result<Vec<_>, _>>()? }))
            }
            _ if self.mode == Mode::Loose => Ok(json!({})),
            _ => Err(unsupported(&path.text, "`allOf` of several schemas is not supported")),
        }
    }

    fn typed(&mut self, fields: &'a Map<String, Value>, path: &Path) -> Result<Value, Problem> {
        let mut types = types_of(fields, path)?;
        if fields.get("nullable") == Some(&Value::Bool(true)) && !types.contains(&"null") {
            types.push("null");
        }
        let mut parts = Vec::with_capacity(types.len());
        for kind in types {
            parts.push(self.of_type(kind, fields, path)?);
        }
        Ok(match parts.len() {
            0 => json!({}),
            1 => parts.swap_remove(0),
            _ => json!({ "anyOf": parts }),
        })
    }

    fn of_type(
        &mut self,
        kind: &str,
        fields: &'a Map<String, Value>,
        path: &Path,
    ) -> Result<Value, Problem> {
        match kind {
            "object" => self.object(fields, path),
            "array" => self.array(fields, path),
            "string" => string(fields, self.mode, path),
            "integer" => integer(fields, self.mode, path),
            "number" => self.number(fields, path),
            "boolean" | "null" => Ok(json!({ "type": kind })),
            other => Err(problem(&path.text, format!("has the unknown type `{other}`"))),
        }
    }

    fn object(&mut self, fields: &'a Map<String, Value>, path: &Path) -> Result<Value, Problem> {
        let mut out = json!({ "type": "object" });
        let empty = Map::new();
        let properties = match fields.get("properties") {
            Some(Value::Object(properties)) => Some(properties),
            None => None,
            Some(_) => return Err(problem(&path.text, "`properties` must be an object")),
        };
        let mut rewritten = Map::new();
        for (name, property) in properties.into_iter().flatten() {
            if name.len() > LONGEST_NAME || name.contains('\0') {
                return Err(unsupported(
                    &path.text,
                    format!("has a property name longer than {LONGEST_NAME} bytes"),
                ));
            }
            rewritten.insert(
                name.clone(),
                self.rewrite(property, &path.join(&format!("properties.{name}")))?,
            );
        }
        if rewritten.len() > MOST_PROPERTIES {
            return Err(unsupported(
                &path.text,
                format!("has more than {MOST_PROPERTIES} properties"),
            ));
        }
        let required = required_of(fields, properties.unwrap_or(&empty), self.mode, path)?;
        if properties.is_some() {
            out["properties"] = Value::Object(rewritten);
            out["required"] = Value::Array(required);
        }
        match fields.get("additionalProperties") {
            Some(Value::Bool(false)) | None => {}
            Some(_) if properties.is_some_and(|p| p.keys().any(|name| !is_plain(name))) => {
                // The converter writes the names into character classes without escaping.
                return Err(unsupported(
                    &path.text,
                    "allows further properties beside one whose name has punctuation",
                ));
            }
            Some(_) => {}
        }
        match fields.get("additionalProperties") {
            Some(Value::Bool(open)) => out["additionalProperties"] = Value::Bool(*open),
            Some(schema) => {
                out["additionalProperties"] =
                    self.rewrite(schema, &path.join("additionalProperties"))?;
            }
            None => {}
        }
        Ok(out)
    }

    fn array(&mut self, fields: &'a Map<String, Value>, path: &Path) -> Result<Value, Problem> {
        let mut out = json!({ "type": "array" });
        if let Some(Value::Array(items)) = fields.get("prefixItems") {
            if items.is_empty() {
                return Err(problem(&path.text, "`prefixItems` must not be empty"));
            }
            let items = items
                .iter()
                .enumerate()
                .map(|(i, item)| self.rewrite(item, &path.join(&format!("prefixItems.{i}"))));
            out["prefixItems"] = Value::Array(items.collect::<Result<Vec<_>, _>>()?);
            return Ok(out);
        }
        if let Some(items) = fields.get("items") {
            out["items"] = self.rewrite(items, &path.join("items"))?;
        }
        counts(&mut out, fields, ["minItems", "maxItems"], (self.mode, path))?;
        Ok(out)
    }

    fn number(&self, fields: &Map<String, Value>, path: &Path) -> Result<Value, Problem> {
        let bounds = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
        match bounds.into_iter().find(|k| fields.contains_key(*k)) {
            Some(key) if self.mode == Mode::Exact => Err(unsupported(
                &path.text,
                format!(
                    "has the keyword `{key}`, which is supported for `integer` but not for `number`"
                ),
            )),
            Some(_) | None => Ok(json!({ "type": "number" })),
        }
    }
}

fn text_of<'a>(value: &'a Value, key: &str, path: &Path) -> Result<&'a str, Problem> {
    value.as_str().ok_or_else(|| problem(&path.text, format!("`{key}` must be a string")))
}

/// How many ways there are to begin a value of `schema`. An endless one is reported: no value fits it.
fn beginnings(
    schema: &Value,
    definitions: &Map<String, Value>,
    known: &mut HashMap<String, Option<u64>>,
) -> Result<u64, Problem> {
    if let Some(Value::Array(items)) = schema.get("anyOf") {
        let mut total = 0_u64;
        for item in items {
            total = total.saturating_add(beginnings(item, definitions, known)?);
        }
        return Ok(total);
    }
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    let Some(name) = name else { return Ok(1) };
    match known.get(name) {
        Some(Some(count)) => return Ok(*count),
        Some(None) => {
            return Err(problem(
                "",
                "has a `$ref` that leads back to itself before any value begins",
            ));
        }
        None => {}
    }
    known.insert(name.to_owned(), None);
    let count =
        definitions.get(name).map_or(Ok(1), |target| beginnings(target, definitions, known))?;
    known.insert(name.to_owned(), Some(count));
    Ok(count)
}

fn problem(path: &str, message: impl Into<String>) -> Problem {
    Problem { path: path.to_owned(), message: message.into(), unsupported: false }
}

fn unsupported(path: &str, message: impl Into<String>) -> Problem {
    Problem { unsupported: true, ..problem(path, message) }
}

#[cfg(test)]
mod tests;
