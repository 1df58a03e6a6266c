//! Conversations as the text that a model was trained on: its own chat template.
//!
//! Templates differ in what they know (a system role, tools, results of calls); what one does not know is put into words
//! that it does know. That is found out once, when the model is loaded, by rendering small conversations. The invariant:
//! text of a client never becomes a control token, so nobody can end a turn or open one in another's name.

use super::jinja;
use crate::backend::{GenerateRequest, Message, Part, Role, Tool, ToolCall, ToolChoice};
use crate::error::ChatError;
use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::{Environment, context};
use serde_json::{Map, Value, json};

/// A noncharacter of Unicode, put into control tokens that a client wrote; the tokeniser never sees it.
const SPLIT: char = '\u{FDD0}';

/// Asks for calls in the form that `tools` finds, for templates that do not know tools themselves.
const TOOL_RULES: &str = "\n\nTo call a function, reply with nothing but a JSON object of this form:\n\
    {\"name\": \"<name of the function>\", \"arguments\": {<its arguments>}}\n\
    Call a function only when it helps; otherwise reply in plain words.";

/// A model's chat template and what it knows.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    env: Environment<'static>,
    controls: AhoCorasick,
    bos: String,
    eos: String,
    system: bool,
    developer: bool,
    tools: bool,
    calls: bool,
    /// Arguments of earlier calls are given as objects, not as text.
    objects: bool,
    thinks: bool,
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// Pieces of the text; a control token never spans two of them.
    pub(crate) pieces: Vec<String>,
    /// Whether the answer may begin with a thought, and if so whether the prompt has opened it already.
    pub(crate) thinking: Option<bool>,
}

/// Texts of a model's special tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialTexts {
    /// Beginning of a text; empty when there is none.
    pub(crate) bos: String,
    /// End of a text; empty when there is none.
    pub(crate) eos: String,
    /// Every token that is not text.
    pub(crate) controls: Vec<String>,
}

impl ChatTemplate {
    /// Parses `source` and finds out what it knows.
    ///
    /// # Errors
    /// When it does not parse or cannot render a single question.
    pub(crate) fn new(source: String, special: SpecialTexts) -> Result<Self, String> {
        let developer = source.contains("developer");
        let thinks = source.contains("<think>");
        let env = jinja::environment(source)
            .map_err(|e| format!("the chat template does not parse: {e}"))?;
        let controls = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(special.controls.iter().filter(|c| c.chars().count() > 1))
            .map_err(|e| e.to_string())?;
        let SpecialTexts { bos, eos, controls: _ } = special;
        let mut template = Self {
            env,
            controls,
            bos,
            eos,
            developer,
            thinks,
            system: true,
            tools: true,
            calls: true,
            objects: true,
        };
        template.probe()?;
        Ok(template)
    }

    fn probe(&mut self) -> Result<(), String> {
        let user = json!({ "role": "user", "content": "probe_question" });
        let shows = |template: &Self, messages: &[Value], tools: &Value, words: &[&str]| {
            template.text(messages, tools).is_ok_and(|text| words.iter().all(|w| text.contains(w)))
        };
        self.text(std::slice::from_ref(&user), &Value::Null)
            .map_err(|e| format!("the chat template cannot render a question: {e}"))?;
        let system = json!({ "role": "system", "content": "probe_system" });
        self.system = shows(self, &[system, user.clone()], &Value::Null, &["probe_system"]);
        let tool = json!([{ "type": "function", "function": { "name": "probe_tool", "description": "d",
            "parameters": { "type": "object", "properties": { "probe_argument": { "type": "string" } } } } }]);
        self.tools = shows(self, std::slice::from_ref(&user), &tool, &["probe_tool"]);
        let called = |arguments: Value| {
            let call = json!({ "id": "call_0001", "type": "function",
                "function": { "name": "probe_tool", "arguments": arguments } });
            let asks = json!({ "role": "assistant", "content": "", "tool_calls": [call] });
            let result = json!({ "role": "tool", "name": "probe_tool", "tool_call_id": "call_0001", "content": "probe_result" });
            [user.clone(), asks, result]
        };
        let words = ["probe_tool", "probe_value", "probe_result"];
        self.objects = shows(self, &called(json!({ "a": "probe_value" })), &Value::Null, &words);
        self.calls = self.objects
            || shows(self, &called(json!("{\"a\": \"probe_value\"}")), &Value::Null, &words);
        Ok(())
    }

    /// The text that `request` continues.
    ///
    /// # Errors
    /// A part that is no text, or a conversation that the template refuses.
    pub(crate) fn render(&self, request: &GenerateRequest) -> Result<Rendered, ChatError> {
        let offered: &[Tool] = match &request.tool_choice {
            ToolChoice::None => &[],
            ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => &request.tools,
        };
        let mut messages = Vec::with_capacity(request.messages.len() + 1);
        for (index, message) in request.messages.iter().enumerate() {
            let before = request.messages.get(..index).unwrap_or_default();
            messages.push(self.message(message, index, before)?);
        }
        let mut tools = Value::Null;
        if !offered.is_empty() {
            let list = Value::Array(offered.iter().map(tool_json).collect());
            if self.tools {
                tools = list;
            } else {
                add_system(&mut messages, &tool_instructions(&list));
            }
        }
        if !self.system {
            fold_system(&mut messages);
        }
        messages.iter_mut().for_each(|m| self.defuse(m));
        self.defuse(&mut tools);
        let text = self.text(&messages, &tools).map_err(|error| {
            ChatError::invalid(
                "messages",
                format!("the model's chat template refuses this conversation: {error}"),
            )
        })?;
        let thinking = self.thinks.then(|| text.trim_end().ends_with("<think>"));
        let pieces = text.split(SPLIT).filter(|p| !p.is_empty()).map(str::to_owned).collect();
        Ok(Rendered { pieces, thinking })
    }

    /// Renders; the error tells the template's own words, never the conversation.
    fn text(&self, messages: &[Value], tools: &Value) -> Result<String, String> {
        let template = self.env.get_template(jinja::TEMPLATE).map_err(|e| e.to_string())?;
        let tools = if tools.is_null() {
            minijinja::Value::UNDEFINED
        } else {
            minijinja::Value::from_serialize(tools)
        };
        let values = context! {
            messages => minijinja::Value::from_serialize(messages),
            tools => tools,
            add_generation_prompt => true,
            bos_token => self.bos,
            eos_token => self.eos,
        };
        template
            .render(values)
            .map_err(|e| e.detail().map_or_else(|| e.kind().to_string(), str::to_owned))
    }

    fn message(
        &self,
        message: &Message,
        index: usize,
        before: &[Message],
    ) -> Result<Value, ChatError> {
        let Message { role, content, name, tool_calls, tool_call_id } = message;
        let text = text_of(content, index)?;
        let mut fields = Map::new();
        let role = match role {
            Role::System => "system",
            Role::Developer if self.developer => "developer",
            Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => return Ok(self.assistant(text, tool_calls)),
            Role::Tool => {
                let called = called_name(tool_call_id.as_deref(), before).or(name.as_deref());
                if !self.calls {
                    let text =
                        format!("The function `{}` returned:\n{text}", called.unwrap_or("unknown"));
                    return Ok(json!({ "role": "user", "content": text }));
                }
                fields.insert("name".to_owned(), json!(called));
                fields.insert("tool_call_id".to_owned(), json!(tool_call_id));
                "tool"
            }
        };
        if let Some(name) = name {
            fields.entry("name").or_insert_with(|| json!(name));
        }
        fields.insert("role".to_owned(), json!(role));
        fields.insert("content".to_owned(), json!(text));
        Ok(Value::Object(fields))
    }

    fn assistant(&self, text: String, calls: &[ToolCall]) -> Value {
        if calls.is_empty() {
            return json!({ "role": "assistant", "content": text });
        }
        if self.calls {
            let calls: Vec<Value> = calls.iter().map(|call| self.call_json(call)).collect();
            return json!({ "role": "assistant", "content": text, "tool_calls": calls });
        }
        let mut lines: Vec<String> = Vec::with_capacity(calls.len() + 1);
        if !text.is_empty() {
            lines.push(text);
        }
        lines.extend(
            calls.iter().map(|call| {
                json!({ "name": call.name, "arguments": arguments_of(call) }).to_string()
            }),
        );
        json!({ "role": "assistant", "content": lines.join("\n") })
    }

    fn call_json(&self, call: &ToolCall) -> Value {
        let arguments = if self.objects { arguments_of(call) } else { json!(call.arguments) };
        json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
    }

    /// Breaks every control token in the strings of `value` in two.
    fn defuse(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if text.contains(SPLIT) {
                    text.retain(|c| c != SPLIT);
                }
                if self.controls.is_match(text.as_str()) {
                    let mut safe = String::with_capacity(text.len() + 8);
                    self.controls.replace_all_with(text, &mut safe, |_, token, out| {
                        let mut chars = token.chars();
                        out.extend(chars.next());
                        out.push(SPLIT);
                        out.push_str(chars.as_str());
                        true
                    });
                    *text = safe;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.defuse(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.defuse(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// The text of a message; parts are joined by a line break.
fn text_of(parts: &[Part], message: usize) -> Result<String, ChatError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let kind = match part {
            Part::Text(text) => {
                texts.push(text.as_str());
                continue;
            }
            Part::ImageUrl { .. } => "image_url",
            Part::InputAudio { .. } => "input_audio",
            Part::AudioUrl(_) => "audio_url",
        };
        let target = format!("messages.{message}.content.{index}");
        return Err(ChatError::unsupported(
            target,
            json!(kind),
            format!("the model takes text, not `{kind}`"),
        ));
    }
    Ok(texts.join("\n"))
}

fn called_name<'a>(id: Option<&str>, before: &'a [Message]) -> Option<&'a str> {
    let calls = before.iter().rev().flat_map(|m| &m.tool_calls);
    calls.into_iter().find(|call| Some(call.id.as_str()) == id).map(|call| call.name.as_str())
}

fn arguments_of(call: &ToolCall) -> Value {
    serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments))
}

fn tool_json(tool: &Tool) -> Value {
    let Tool { name, description, parameters, strict: _ } = tool;
    let mut function = Map::new();
    function.insert("name".to_owned(), json!(name));
    function.insert("description".to_owned(), json!(description.as_deref().unwrap_or_default()));
    let none = || json!({ "type": "object", "properties": {} });
    function.insert("parameters".to_owned(), parameters.clone().unwrap_or_else(none));
    json!({ "type": "function", "function": function })
}

fn tool_instructions(tools: &Value) -> String {
    let mut text = "You may call these functions:".to_owned();
    for tool in tools.as_array().into_iter().flatten() {
        text.push('\n');
        text.push_str(&tool.get("function").unwrap_or(tool).to_string());
    }
    text.push_str(TOOL_RULES);
    text
}

/// Adds to the instructions at the top of the conversation, or puts some there.
fn add_system(messages: &mut Vec<Value>, text: &str) {
    match messages.first_mut() {
        Some(first) if is_system(first) => {
            let before = first["content"].as_str().unwrap_or_default();
            first["content"] = json!(format!("{before}\n\n{text}"));
        }
        Some(_) | None => messages.insert(0, json!({ "role": "system", "content": text })),
    }
}

/// Moves instructions into the next message of the user, for models without a system role.
fn fold_system(messages: &mut Vec<Value>) {
    let mut out: Vec<Value> = Vec::with_capacity(messages.len());
    let mut pending = String::new();
    for mut message in messages.drain(..) {
        if is_system(&message) {
            pending.push_str(message["content"].as_str().unwrap_or_default());
            pending.push_str("\n\n");
        } else {
            if message["role"] == "user" && !pending.is_empty() {
                pending.push_str(message["content"].as_str().unwrap_or_default());
                message["content"] = json!(std::mem::take(&mut pending));
            }
            out.push(message);
        }
    }
    if !pending.is_empty() {
        out.push(json!({ "role": "user", "content": pending.trim_end() }));
    }
    *messages = out;
}

fn is_system(message: &Value) -> bool {
    message["role"] == "system" || message["role"] == "developer"
}

#[cfg(test)]
mod tests;
