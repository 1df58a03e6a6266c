//! What is enforced is rewritten, what cannot be is refused by name, and what would hurt C++ never reaches it.

use super::*;

fn exact(schema: &Value) -> Result<Value, Problem> {
    let mut document = Document::default();
    let root = document.add(schema, Mode::Exact)?;
    document.finish(root)
}

fn loose(schema: &Value) -> Result<Value, Problem> {
    Document::default().add(schema, Mode::Loose)
}

fn message(schema: &Value) -> String {
    let problem = exact(schema).unwrap_err();
    format!("{}: {}", problem.path, problem.message)
}

#[test]
fn a_plain_schema_keeps_what_is_enforced_and_the_order_of_its_properties() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Person", "type": "object",
        "properties": {
            "zeta": { "type": "string", "description": "d", "minLength": 1, "format": "email" },
            "alpha": { "type": ["integer", "null"], "minimum": 0 },
        },
        "required": ["zeta"], "additionalProperties": false,
    });
    let out = exact(&schema).unwrap();
    assert_eq!(
        out.to_string(),
        r#"{"type":"object","properties":{"zeta":{"type":"string","minLength":1},"alpha":{"anyOf":[{"type":"integer","minimum":0},{"type":"null"}]}},"required":["zeta"],"additionalProperties":false}"#
    );
}

#[test]
fn references_are_resolved_even_when_recursive_or_escaped() {
    let schema = json!({
        "$ref": "#/$defs/a~1b",
        "$defs": { "a/b": { "type": "object", "properties": { "next": { "anyOf": [{ "$ref": "#" }, { "type": "null" }] } } } },
    });
    let out = exact(&schema).unwrap();
    let name = out["$ref"].as_str().unwrap().strip_prefix("#/$defs/").unwrap();
    let next = out["$defs"][name]["properties"]["next"]["anyOf"][0]["$ref"].as_str().unwrap();
    assert!(out.pointer(next.strip_prefix('#').unwrap()).is_some());
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    for (schema, word) in [
        (json!({ "type": "string", "pattern": "^a$" }), "`pattern`"),
        (json!({ "type": "number", "maximum": 3 }), "`maximum`"),
        (json!({ "type": "array", "uniqueItems": true }), "`uniqueItems`"),
        (json!({ "not": {} }), "`not`"),
        (json!({ "type": "object", "patternProperties": {} }), "`patternProperties`"),
        (json!({ "allOf": [{}, {}] }), "`allOf`"),
        (json!({ "anyOf": [{}, {}], "properties": {} }), "`properties` beside `anyOf`"),
        (json!({ "type": "object", "properties": {}, "required": ["x"] }), "`x`"),
        (json!({ "$ref": "https://example.com/s" }), "leaves the schema"),
        (json!({ "$ref": "#/$defs/none" }), "refers to nothing"),
    ] {
        assert!(message(&schema).contains(word), "{schema}: {}", message(&schema));
    }
    for (schema, is_right) in [
        (json!({ "type": "string", "pattern": "^a$" }), true),
        (json!({ "type": "string", "maxLength": 5000 }), true),
        (json!({ "type": "integer", "maximum": 1e16 }), true),
        (json!({ "type": "string", "maxLength": "many" }), false),
        (json!({ "type": "word" }), false),
        (json!({ "$ref": "#/$defs/none" }), false),
    ] {
        assert_eq!(exact(&schema).unwrap_err().unsupported, is_right, "{schema}");
        assert_eq!(loose(&schema).is_ok(), is_right, "{schema}");
    }
    let nested = json!({ "type": "object", "properties": { "a": { "type": "array", "items": { "type": "string", "pattern": "x" } } } });
    assert!(message(&nested).starts_with("properties.a.items: "));
}

#[test]
fn what_would_hurt_the_converter_is_refused() {
    let mut deep = json!({});
    for _ in 0..40 {
        deep = json!({ "type": "array", "items": deep });
    }
    // 2^40 ways to begin a value.
    let mut definitions = Map::new();
    for i in 0..40 {
        let next = json!({ "$ref": format!("#/$defs/d{}", i + 1) });
        definitions.insert(format!("d{i}"), json!({ "anyOf": [next, next] }));
    }
    definitions.insert("d40".into(), json!({ "type": "null" }));
    let wide = json!({ "$ref": "#/$defs/d0", "$defs": definitions });
    // 7^20 objects in one another.
    let mut types = json!({});
    for _ in 0..20 {
        types =
            json!({ "type": ["object", "array"], "properties": { "a": types }, "items": types });
    }
    for schema in [
        deep,
        wide,
        types,
        json!({ "type": "array", "maxItems": 1_000_000 }),
        json!({ "type": "array", "minItems": 3, "maxItems": 2 }),
        json!({ "type": "integer", "minimum": 3, "exclusiveMaximum": 3 }),
        json!({ "type": "integer", "minimum": 1e300 }),
        json!({ "enum": [] }),
        json!({ "anyOf": [] }),
        json!({ "type": ["object", "object"] }),
        json!({ "type": "object", "properties": { "x".repeat(1000): {} } }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
        json!({ "$ref": "#" }),
        json!({ "anyOf": [{ "$ref": "#" }, { "type": "null" }] }),
        json!([]),
        json!("x"),
    ] {
        assert!(exact(&schema).is_err(), "{schema}");
    }
}

#[test]
fn a_loose_schema_leaves_out_what_cannot_be_enforced() {
    let mut document = Document::default();
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": "x", "minLength": 2 } }, "required": ["a", "b"] });
    let out = document.add(&schema, Mode::Loose).unwrap();
    assert_eq!(out["properties"]["a"], json!({ "type": "string", "minLength": 2 }));
    assert_eq!(out["required"], json!(["a"]));
}

#[test]
fn definitions_of_several_schemas_do_not_clash() {
    let with = |kind: &str| json!({ "$ref": "#/$defs/x", "$defs": { "x": { "type": kind } } });
    let mut document = Document::default();
    let first = document.add(&with("string"), Mode::Exact).unwrap();
    let second = document.add(&with("integer"), Mode::Exact).unwrap();
    let out = document.finish(json!({ "anyOf": [first, second] })).unwrap();
    assert_eq!(out["$defs"].as_object().unwrap().len(), 2);
}
