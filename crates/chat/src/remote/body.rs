//! Requests as OpenAI's servers read them.
//!
//! Pure. Always streamed, always with usage. What was passed through is merged untouched, but never replaces a field that is
//! written here.

use crate::backend::{
    CompleteRequest, GenerateRequest, Message, Part, Prompt, ResponseFormat, Role, Sampling, Tool,
    ToolCall, ToolChoice,
};
use serde_json::{Map, Value, json};

/// How a server wants to be spoken to.
#[derive(Debug, Clone)]
pub(super) struct Dialect {
    /// Its own name of the model.
    pub(super) model: String,
    /// Whether it wants the newer name of `max_tokens`.
    pub(super) max_completion_tokens: bool,
}

/// The body of `/chat/completions`.
pub(super) fn chat(request: GenerateRequest, dialect: &Dialect) -> Value {
    let GenerateRequest {
        model: _,
        messages,
        sampling,
        response_format,
        tools,
        tool_choice,
        parallel_tool_calls,
        extra,
    } = request;
    let mut body = begin(extra, dialect);
    body.insert("messages".into(), messages.into_iter().map(message).collect());
    let top_logprobs = sampling.top_logprobs;
    let max_tokens =
        if dialect.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
    write_sampling(sampling, max_tokens, &mut body);
    if let Some(many) = top_logprobs {
        body.insert("logprobs".into(), json!(true));
        body.insert("top_logprobs".into(), json!(many));
    }
    match response_format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(json!({"type": "json_object"})),
        ResponseFormat::JsonSchema { name, schema, strict } => Some(json!({
            "type": "json_schema",
            "json_schema": {"name": name, "schema": schema, "strict": strict},
        })),
    }
    .and_then(|format| body.insert("response_format".into(), format));
    if !tools.is_empty() {
        body.insert("tools".into(), tools.into_iter().map(tool).collect());
        body.insert("tool_choice".into(), choice(tool_choice));
        if !parallel_tool_calls {
            body.insert("parallel_tool_calls".into(), json!(false));
        }
    }
    Value::Object(body)
}

/// The body of `/completions`.
pub(super) fn completions(request: CompleteRequest, dialect: &Dialect) -> Value {
    let CompleteRequest { model: _, prompts, sampling, suffix, echo, best_of, extra } = request;
    let mut body = begin(extra, dialect);
    body.insert("prompt".into(), write_prompts(prompts));
    if let Some(many) = sampling.top_logprobs {
        body.insert("logprobs".into(), json!(many));
    }
    write_sampling(sampling, "max_tokens", &mut body);
    let mut optional = |name: &str, value: Option<Value>| {
        value.and_then(|value| body.insert(name.to_owned(), value));
    };
    optional("suffix", suffix.map(Value::from));
    optional("echo", echo.then_some(Value::Bool(true)));
    optional("best_of", best_of.map(Value::from));
    Value::Object(body)
}

fn begin(extra: Map<String, Value>, dialect: &Dialect) -> Map<String, Value> {
    let mut body = extra;
    body.insert("model".into(), json!(dialect.model));
    body.insert("stream".into(), json!(true));
    body.insert("stream_options".into(), json!({"include_usage": true}));
    body
}

/// One text as a string, several as an array; so with tokens.
fn write_prompts(prompts: Vec<Prompt>) -> Value {
    let mut written: Vec<Value> = prompts
        .into_iter()
        .map(|prompt| match prompt {
            Prompt::Text(text) => json!(text),
            Prompt::Tokens(ids) => json!(ids),
        })
        .collect();
    match written.pop() {
        Some(only) if written.is_empty() => only,
        last @ (Some(_) | None) => {
            written.extend(last);
            Value::Array(written)
        }
    }
}

fn write_sampling(sampling: Sampling, max_tokens_name: &str, body: &mut Map<String, Value>) {
    let Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n,
        top_logprobs: _,
        logit_bias,
    } = sampling;
    let mut optional = |name: &str, value: Option<Value>| {
        value.and_then(|value| body.insert(name.to_owned(), value));
    };
    optional("temperature", temperature.map(number));
    optional("top_p", top_p.map(number));
    optional("frequency_penalty", frequency_penalty.map(number));
    optional("presence_penalty", presence_penalty.map(number));
    optional(max_tokens_name, max_tokens.map(Value::from));
    optional("stop", (!stop.is_empty()).then(|| json!(stop)));
    optional("seed", seed.map(Value::from));
    optional("n", (n > 1).then(|| json!(n)));
    let biases = logit_bias.into_iter().map(|(id, bias)| (id.to_string(), number(bias)));
    optional(
        "logit_bias",
        Some(biases.collect::<Map<_, _>>()).filter(|map| !map.is_empty()).map(Value::from),
    );
}

/// The shortest decimal that means this float: 0.7, not 0.699999988079071.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn message(message: Message) -> Value {
    let Message { role, content, name, tool_calls, tool_call_id } = message;
    let mut out = Map::new();
    // OpenAI's servers take `system` for every model; few others know `developer`.
    let role = match role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    out.insert("role".into(), json!(role));
    out.insert("content".into(), write_content(content, !tool_calls.is_empty()));
    let mut optional = |key: &str, value: Option<Value>| {
        value.and_then(|value| out.insert(key.to_owned(), value));
    };
    optional("name", name.map(Value::from));
    optional("tool_call_id", tool_call_id.map(Value::from));
    let calls: Vec<Value> = tool_calls.into_iter().map(call).collect();
    optional("tool_calls", (!calls.is_empty()).then_some(Value::Array(calls)));
    Value::Object(out)
}

/// One text as a string, which every server takes; anything else as parts. A message that only calls says null.
fn write_content(mut parts: Vec<Part>, calls: bool) -> Value {
    match parts.pop() {
        None if calls => Value::Null,
        None => json!(""),
        Some(Part::Text(text)) if parts.is_empty() => json!(text),
        Some(last) => parts.into_iter().chain([last]).map(part).collect(),
    }
}

fn part(part: Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::ImageUrl { url, detail } if detail.is_empty() => {
            json!({"type": "image_url", "image_url": {"url": url}})
        }
        Part::ImageUrl { url, detail } => {
            json!({"type": "image_url", "image_url": {"url": url, "detail": detail}})
        }
        Part::InputAudio { data, format } => {
            json!({"type": "input_audio", "input_audio": {"data": data, "format": format}})
        }
        Part::AudioUrl(url) => json!({"type": "audio_url", "audio_url": {"url": url}}),
    }
}

fn call(call: ToolCall) -> Value {
    let ToolCall { id, name, arguments } = call;
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn tool(tool: Tool) -> Value {
    let Tool { name, description, parameters, strict } = tool;
    let mut function = Map::new();
    function.insert("name".into(), json!(name));
    let mut optional = |key: &str, value: Option<Value>| {
        value.and_then(|value| function.insert(key.to_owned(), value));
    };
    optional("description", description.map(Value::from));
    optional("parameters", parameters);
    optional("strict", strict.then_some(Value::Bool(true)));
    json!({"type": "function", "function": function})
}

fn choice(choice: ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn dialect() -> Dialect {
        Dialect { model: "org/model".into(), max_completion_tokens: false }
    }

    fn said(role: Role, content: Vec<Part>) -> Message {
        Message { role, content, name: None, tool_calls: Vec::new(), tool_call_id: None }
    }

    fn hello() -> GenerateRequest {
        GenerateRequest {
            messages: vec![said(Role::User, vec![Part::Text("Hi".into())])],
            parallel_tool_calls: true,
            ..GenerateRequest::default()
        }
    }

    #[test]
    fn a_plain_conversation_has_nothing_but_what_it_needs() {
        assert_eq!(
            chat(hello(), &dialect()),
            json!({
                "model": "org/model", "stream": true, "stream_options": {"include_usage": true},
                "messages": [{"role": "user", "content": "Hi"}]
            })
        );
    }

    #[test]
    fn sampling_is_written_with_short_numbers() {
        let sampling = Sampling {
            temperature: Some(0.7),
            top_p: Some(0.1),
            max_tokens: Some(5),
            stop: vec!["a".into()],
            seed: Some(-3),
            n: 2,
            top_logprobs: Some(0),
            logit_bias: BTreeMap::from([(7, -1.5)]),
            ..Sampling::default()
        };
        let body = chat(GenerateRequest { sampling: sampling.clone(), ..hello() }, &dialect());
        for (name, value) in [
            ("temperature", json!(0.7)),
            ("top_p", json!(0.1)),
            ("max_tokens", json!(5)),
            ("stop", json!(["a"])),
            ("seed", json!(-3)),
            ("n", json!(2)),
            ("logprobs", json!(true)),
            ("top_logprobs", json!(0)),
            ("logit_bias", json!({"7": -1.5})),
        ] {
            assert_eq!(body[name], value, "{name}");
        }
        let newer = Dialect { max_completion_tokens: true, ..dialect() };
        let body = chat(GenerateRequest { sampling, ..hello() }, &newer);
        assert_eq!((&body["max_completion_tokens"], body.get("max_tokens")), (&json!(5), None));
    }

    #[test]
    fn a_conversation_with_tools_goes_as_it_came() {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
        let assistant = Message { tool_calls: vec![call], ..said(Role::Assistant, Vec::new()) };
        let answer = Message {
            tool_call_id: Some("1".into()),
            ..said(Role::Tool, vec![Part::Text("4".into())])
        };
        let request = GenerateRequest {
            messages: vec![
                said(Role::Developer, vec![Part::Text("Be kind.".into())]),
                assistant,
                answer,
            ],
            tools: vec![Tool {
                name: "f".into(),
                description: None,
                parameters: Some(json!({"type": "object"})),
                strict: true,
            }],
            tool_choice: ToolChoice::Named("f".into()),
            parallel_tool_calls: false,
            ..GenerateRequest::default()
        };
        let body = chat(request, &dialect());
        assert_eq!(
            body["messages"],
            json!([
                {"role": "system", "content": "Be kind."},
                {"role": "assistant", "content": null, "tool_calls":
                    [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "content": "4", "tool_call_id": "1"}
            ])
        );
        assert_eq!(
            body["tools"],
            json!([{"type": "function", "function":
                {"name": "f", "parameters": {"type": "object"}, "strict": true}}])
        );
        assert_eq!(body["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
        assert_eq!(body["parallel_tool_calls"], json!(false));
    }

    #[test]
    fn images_and_sound_are_parts() {
        let parts = vec![
            Part::Text("What?".into()),
            Part::ImageUrl { url: "https://x/y.png".into(), detail: "low".into() },
            Part::InputAudio { data: "aGk=".into(), format: "wav".into() },
        ];
        let body = chat(
            GenerateRequest { messages: vec![said(Role::User, parts)], ..hello() },
            &dialect(),
        );
        assert_eq!(
            body["messages"][0]["content"],
            json!([
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
            ])
        );
    }

    #[test]
    fn extras_are_merged_untouched_but_replace_nothing() {
        let extra = json!({"top_k": 5, "nested": {"a": null}, "stream": false, "model": "other"});
        let extra = extra.as_object().unwrap().clone();
        let body = chat(GenerateRequest { extra, ..hello() }, &dialect());
        assert_eq!((&body["top_k"], &body["nested"]), (&json!(5), &json!({"a": null})));
        assert_eq!((&body["stream"], &body["model"]), (&json!(true), &json!("org/model")));
    }

    #[test]
    fn prompts_are_written_in_their_shortest_form() {
        let text = |text: &str| Prompt::Text(text.into());
        for (prompts, written) in [
            (vec![text("a")], json!("a")),
            (vec![text("a"), text("b")], json!(["a", "b"])),
            (vec![Prompt::Tokens(vec![1, 2])], json!([1, 2])),
            (vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])], json!([[1], [2]])),
        ] {
            let request = CompleteRequest { prompts, ..CompleteRequest::default() };
            assert_eq!(completions(request, &dialect())["prompt"], written);
        }
    }
}
