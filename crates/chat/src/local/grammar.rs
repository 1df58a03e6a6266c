//! Grammars that hold the model to a shape: a response format or the call of a tool.
//!
//! Separate because llama.cpp's grammars can abort the process or never end; what reaches them here has gone through
//! `schema`, and the grammar is built once before the first token, so that a bad schema is an error of the request.

use super::schema::{Document, Mode, Problem};
use crate::backend::{GenerateRequest, ResponseFormat, Tool, ToolChoice};
use crate::error::ChatError;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use serde_json::{Value, json};

/// Field of a request that a schema comes from.
const RESPONSE_SCHEMA: &str = "response_format.json_schema.schema";
/// Longest grammar text that is handed on.
const LONGEST_GRAMMAR: usize = 1024 * 1024;

/// The schema that `request` holds the answer to; none for free text.
///
/// # Errors
/// A schema that cannot be enforced, or a tool choice without its tool.
pub(crate) fn schema_for(request: &GenerateRequest) -> Result<Option<Value>, ChatError> {
    if is_forced(request)? {
        return forced_call(request).map(Some);
    }
    let mut document = Document::default();
    let answer = match &request.response_format {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonObject => json!({ "type": "object" }),
        ResponseFormat::JsonSchema { name: _, schema, strict } => {
            document.add(schema, mode(*strict)).map_err(bad_format)?
        }
    };
    // With tools at hand the model may call one instead of answering.
    let mut shapes = calls(request, &mut document)?;
    let root = if shapes.is_empty() {
        answer
    } else {
        shapes.push(answer);
        json!({ "anyOf": shapes })
    };
    document.finish(root).map(Some).map_err(bad_format)
}

/// Whether `request` forces the call of a tool.
///
/// # Errors
/// When the tool that must be called is not declared.
pub(crate) fn is_forced(request: &GenerateRequest) -> Result<bool, ChatError> {
    match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::None => Ok(false),
        ToolChoice::Required if request.tools.is_empty() => Err(ChatError::invalid(
            "tool_choice",
            "`tool_choice` is `required`, but there are no `tools`",
        )),
        ToolChoice::Required => Ok(true),
        ToolChoice::Named(name) if request.tools.iter().any(|tool| tool.name == *name) => Ok(true),
        ToolChoice::Named(name) => Err(ChatError::invalid(
            "tool_choice.function.name",
            format!("no tool is named `{name}`"),
        )),
    }
}

fn forced_call(request: &GenerateRequest) -> Result<Value, ChatError> {
    let mut document = Document::default();
    let shapes = calls(request, &mut document)?;
    let finished = document.finish(json!({ "anyOf": shapes }));
    finished.map_err(|p| bad(("tools", "tools"), "", p))
}

/// One shape for each tool that may be called.
fn calls(request: &GenerateRequest, document: &mut Document) -> Result<Vec<Value>, ChatError> {
    let mut shapes = Vec::new();
    for (index, tool) in request.tools.iter().enumerate() {
        let callable = match &request.tool_choice {
            ToolChoice::None => false,
            ToolChoice::Named(name) => *name == tool.name,
            ToolChoice::Auto | ToolChoice::Required => true,
        };
        if callable {
            let target = format!("tools.{index}.function.parameters");
            let shape = call_shape(tool, document);
            shapes.push(shape.map_err(|p| bad((&target, &target), &tool.name, p))?);
        }
    }
    Ok(shapes)
}

fn call_shape(tool: &Tool, document: &mut Document) -> Result<Value, Problem> {
    let arguments = match &tool.parameters {
        None => json!({ "type": "object", "properties": {}, "required": [] }),
        Some(Value::Object(fields)) if fields.is_empty() => json!({ "type": "object" }),
        Some(schema) => document.add(schema, mode(tool.strict))?,
    };
    Ok(json!({
        "type": "object",
        "properties": { "name": { "enum": [tool.name] }, "arguments": arguments },
        "required": ["name", "arguments"],
        "additionalProperties": false,
    }))
}

/// How a schema is held to: without `strict`, by as much of it as can be enforced.
const fn mode(strict: bool) -> Mode {
    if strict { Mode::Exact } else { Mode::Loose }
}

fn bad_format(problem: Problem) -> ChatError {
    bad((RESPONSE_SCHEMA, "response_format"), "json_schema", problem)
}

/// The error for a schema in the field `target`; where it only cannot be enforced, `field` and `input` are what the contract's
/// `parameter_not_supported` shows (section 6.2).
fn bad((target, field): (&str, &str), input: &str, problem: Problem) -> ChatError {
    let Problem { path, message, unsupported } = problem;
    let (at, place) = if path.is_empty() {
        (target.to_owned(), "the schema".to_owned())
    } else {
        (format!("{target}.{path}"), format!("`{path}` of the schema"))
    };
    let advice = if unsupported { "; without `strict` it is not held to" } else { "" };
    let message = format!("{place} {message}{advice}");
    if unsupported {
        ChatError::unsupported(field, json!(input), message)
    } else {
        ChatError::invalid(at, message)
    }
}

/// The sampler that allows only what fits `schema`.
///
/// # Errors
/// When llama.cpp cannot make a grammar of it.
pub(crate) fn build(model: &LlamaModel, schema: &Value) -> Result<LlamaSampler, ChatError> {
    let refused = || {
        ChatError::invalid(
            RESPONSE_SCHEMA,
            "the schema is too complex to hold an answer to; simplify it",
        )
    };
    // Without a subscriber: what llama.cpp logs about a grammar would show the client's schema.
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
        let grammar =
            llama_cpp_2::json_schema_to_grammar(&schema.to_string()).map_err(|_| refused())?;
        if grammar.len() > LONGEST_GRAMMAR {
            return Err(refused());
        }
        LlamaSampler::grammar(model, &grammar, "root").map_err(|_| refused())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: Value, strict: bool) -> Tool {
        Tool { name: name.into(), description: None, parameters: Some(parameters), strict }
    }

    fn request(choice: ToolChoice, format: ResponseFormat) -> GenerateRequest {
        let city = json!({ "type": "object", "properties": { "city": { "type": "string", "pattern": "x" } }, "required": ["city"] });
        GenerateRequest {
            tools: vec![tool("weather", city, false), tool("time", json!({}), false)],
            tool_choice: choice,
            response_format: format,
            ..GenerateRequest::default()
        }
    }

    #[test]
    fn free_text_needs_no_grammar_even_with_tools() {
        assert_eq!(schema_for(&request(ToolChoice::Auto, ResponseFormat::Text)).unwrap(), None);
    }

    #[test]
    fn a_named_tool_is_the_only_shape() {
        let named = request(ToolChoice::Named("time".into()), ResponseFormat::Text);
        let schema = schema_for(&named).unwrap().unwrap();
        let shapes = schema["anyOf"].as_array().unwrap();
        assert_eq!(shapes.len(), 1);
        assert_eq!(shapes[0]["properties"]["name"]["enum"], json!(["time"]));
    }

    #[test]
    fn a_response_format_leaves_room_for_calls() {
        let both = request(ToolChoice::Auto, ResponseFormat::JsonObject);
        assert_eq!(schema_for(&both).unwrap().unwrap()["anyOf"].as_array().unwrap().len(), 3);
        let none = request(ToolChoice::None, ResponseFormat::JsonObject);
        assert_eq!(schema_for(&none).unwrap().unwrap(), json!({ "type": "object" }));
    }

    #[test]
    fn errors_name_the_field_of_the_request() {
        let unknown = request(ToolChoice::Named("nobody".into()), ResponseFormat::Text);
        let Err(ChatError::Invalid { target, message }) = schema_for(&unknown) else { panic!() };
        assert_eq!(target, "tool_choice.function.name");
        assert!(message.contains("`nobody`"));

        let schema = json!({ "type": "object", "properties": { "a": { "not": {} } } });
        let format = |schema: &Value, strict| {
            let schema = schema.clone();
            let format = ResponseFormat::JsonSchema { name: "a".into(), schema, strict };
            schema_for(&request(ToolChoice::None, format))
        };
        let Err(ChatError::Unsupported { target, input, message }) = format(&schema, true) else {
            panic!()
        };
        assert_eq!((target.as_str(), input), ("response_format", json!("json_schema")));
        assert!(message.starts_with("`properties.a` of the schema") && message.contains("`not`"));
        assert!(format(&schema, false).is_ok(), "the rest of it is held to");

        let wrong = json!({ "type": "object", "properties": { "a": { "type": "word" } } });
        for strict in [true, false] {
            let Err(ChatError::Invalid { target, .. }) = format(&wrong, strict) else { panic!() };
            assert_eq!(target, "response_format.json_schema.schema.properties.a");
        }
    }

    #[test]
    fn a_strict_tool_is_refused_where_a_loose_one_is_relaxed() {
        let mut strict = request(ToolChoice::Required, ResponseFormat::Text);
        assert!(schema_for(&strict).is_ok());
        strict.tools[0].strict = true;
        let Err(ChatError::Unsupported { target, input, message }) = schema_for(&strict) else {
            panic!()
        };
        assert_eq!((target.as_str(), input), ("tools.0.function.parameters", json!("weather")));
        assert!(message.starts_with("`properties.city` of the schema"), "{message}");
    }
}
