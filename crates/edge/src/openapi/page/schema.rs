//! Schemas in words: what a value must be, in a line where that is possible and in a table where it is an object.

use super::html::{Html, slug};
use super::{list, object, text};
use serde_json::Value;

/// Keywords that bound a value, with the words for them.
const BOUNDS: [(&str, &str); 7] = [
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "characters at least"),
    ("maxLength", "characters at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
    ("pattern", "matching"),
];

/// The whole of a schema: tables of its properties, or of those of its forms.
pub(super) fn render(html: &mut Html, schema: &Value) {
    if schema.get("properties").is_some() {
        properties(html, schema);
        return;
    }
    let mut forms = ["oneOf", "anyOf"].into_iter().flat_map(|key| list(schema, &format!("/{key}")));
    if forms.any(|form| form.get("properties").is_some()) {
        for form in ["/oneOf", "/anyOf"].into_iter().flat_map(|key| list(schema, key)) {
            html.paragraphs(text(form, "/description"));
            render(html, form);
        }
        return;
    }
    html.raw("<p>");
    shape(html, schema);
    html.raw("</p>\n");
}

fn properties(html: &mut Html, schema: &Value) {
    html.raw("<table>\n<tr><th>Property</th><th>Type</th><th></th></tr>\n");
    for (name, property) in object(schema, "/properties") {
        html.raw("<tr><td>").element("code", name);
        if list(schema, "/required").any(|required| required == name) {
            html.raw(" <span class=\"required\">required</span>");
        }
        html.raw("</td><td>");
        shape(html, property);
        html.raw("</td><td>").paragraphs(text(property, "/description")).raw("</td></tr>\n");
    }
    html.raw("</table>\n");
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        html.raw("<p>No other properties.</p>\n");
    }
}

/// A schema in a line.
pub(super) fn shape(html: &mut Html, schema: &Value) {
    if let Some(name) =
        schema.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
    {
        html.raw(&format!("<a href=\"#{}\">", slug(name))).text(name).raw("</a>");
        return;
    }
    if let Some(word) = schema.get("const") {
        html.element("code", &word.to_string());
        return;
    }
    let forms: Vec<&Value> =
        ["/oneOf", "/anyOf", "/enum"].into_iter().flat_map(|key| list(schema, key)).collect();
    if !forms.is_empty() && schema.get("properties").is_none() {
        for (i, form) in forms.into_iter().enumerate() {
            html.raw(if i == 0 { "" } else { " or " });
            if schema.get("enum").is_some() {
                html.element("code", &form.to_string());
            } else {
                shape(html, form);
            }
        }
        return;
    }
    plain(html, schema);
}

fn plain(html: &mut Html, schema: &Value) {
    match schema.get("type") {
        Some(Value::String(kind)) => kind_of(html, kind, schema),
        Some(Value::Array(kinds)) => {
            for (i, kind) in kinds.iter().filter_map(Value::as_str).enumerate() {
                html.raw(if i == 0 { "" } else { " or " });
                kind_of(html, kind, schema);
            }
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            html.raw("anything");
        }
    }
    for (keyword, words) in BOUNDS {
        if let Some(bound) = schema.get(keyword) {
            let said = bound.as_str().map_or_else(|| bound.to_string(), str::to_owned);
            html.raw(", ").raw(words).raw(" ").element("code", &said);
        }
    }
}

fn kind_of(html: &mut Html, kind: &str, schema: &Value) {
    html.text(kind);
    if let Some(items) = schema.get("items").filter(|_| kind == "array") {
        html.raw(" of (");
        shape(html, items);
        html.raw(")");
    }
    if kind == "object" && schema.get("properties").is_some() {
        html.raw(" of (");
        for (i, (name, property)) in object(schema, "/properties").enumerate() {
            html.raw(if i == 0 { "" } else { "; " }).element("code", name).raw(": ");
            shape(html, property);
        }
        html.raw(")");
    }
}
