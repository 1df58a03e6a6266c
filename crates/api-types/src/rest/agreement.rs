//! The published schemas and the parsers take the same bodies: thousands of mutated samples go through both.
//!
//! The seed is fixed, so a failure repeats. A parser may refuse more than a schema only where a rule needs two fields at
//! once; those rules are listed, by the field they blame. A schema may never refuse what a parser takes.

use super::content_safety::{
    AnalyzeImageRequest, AnalyzeTextRequest, ImageSource, ShieldPromptRequest,
};
use super::fuzz::{Dice, KEYS, SEED, WORDS};
use super::*;
use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::json;

/// Mutated bodies per sample.
const MUTANTS: usize = 1500;
/// Inputs of one request.
const MOST_INPUTS: usize = 3;
/// Fields that a rule over several fields blames.
const CROSS_FIELD: [&str; 5] =
    ["tool_choice", "top_logprobs", "stream_options", "best_of", "documents"];

type Verdict = Result<(), Fault>;

/// What one parser and one schema are to agree on.
struct Endpoint {
    name: &'static str,
    schema: Validator,
    parse: fn(&[u8]) -> Verdict,
    /// OpenAI's names, which as nulls are absent on the inference routes; the schema does not list them there.
    silent: &'static [&'static str],
    samples: Vec<Value>,
}

fn validator(make: impl FnOnce(&mut SchemaGenerator) -> Schema) -> Validator {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = make(&mut generator);
    schema.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
    jsonschema::validator_for(schema.as_value()).unwrap()
}

fn nothing_extra<T>(parsed: &Parsed<T>) -> Verdict {
    if parsed.extra.is_empty() { Ok(()) } else { Err(extra_parameters_fault(&parsed.extra)) }
}

fn images(request: &ImageEmbeddingsRequest) -> Verdict {
    request.input.iter().enumerate().try_for_each(|(i, image)| image.decode(i).map(drop))
}

fn chat_samples() -> Vec<Value> {
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let messages = json!([
        {"role": "system", "content": [{"type": "text", "text": "a"}], "name": "n"},
        {"role": "developer", "content": "a"},
        {"role": "user", "content": "a", "name": null},
        {"role": "assistant", "content": null, "tool_calls": [call], "function_call": null},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}],
            "function_call": {"name": "f", "arguments": {}}},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://x/y"}},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "aGk="}, "format": "mp3"},
            {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,aGk="}}
        ]}
    ]);
    let whole = json!({
        "messages": messages, "model": "m", "frequency_penalty": 0, "presence_penalty": -2,
        "temperature": 1.5, "top_p": 1, "max_tokens": 5, "stop": ["a"], "seed": 7, "stream": true,
        "response_format": {"type": "json_schema", "json_schema":
            {"name": "a", "schema": {}, "description": "d", "strict": true}},
        "tools": [{"type": "function", "function":
            {"name": "f", "description": "d", "parameters": {}, "strict": false}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "modalities": ["text"],
        "user_security_context": {"application_name": "a", "source_ip": "::",
            "end_user_id": "00000000-0000-0000-0000-000000000000"}
    });
    let mut chosen = whole.clone();
    chosen["tool_choice"] = json!("auto");
    chosen["response_format"] = json!({"type": "json_object"});
    chosen["stop"] = json!("a");
    vec![whole, chosen, json!({"messages": [{"role": "user", "content": "a"}]})]
}

fn openai_chat_samples() -> Vec<Value> {
    let mut samples = chat_samples();
    samples.push(json!({
        "messages": [{"role": "user", "content": "a"}, {"role": "function", "name": "f", "content": "4"}],
        "max_completion_tokens": 5, "n": 2, "logprobs": true, "top_logprobs": 3,
        "logit_bias": {"7": 1.5}, "parallel_tool_calls": true, "user": "u", "stream": true,
        "stream_options": {"include_usage": true}, "functions": [{"name": "f"}],
        "function_call": {"name": "f"}, "reasoning_effort": "low", "unheard_of": 1
    }));
    samples
}

fn completions_samples() -> Vec<Value> {
    let one = json!({"prompt": "a", "model": "m", "max_tokens": 3, "temperature": 0, "stop": "a"});
    vec![
        one,
        json!({"prompt": [[1, 2], "a"]}),
        json!({"prompt": [1, 2], "stream": false, "seed": 1}),
    ]
}

fn openai_completions_samples() -> Vec<Value> {
    let mut samples = completions_samples();
    samples.push(json!({"prompt": ["a"], "best_of": 1, "n": 1, "echo": true, "logprobs": 5,
        "logit_bias": {"7": -100}, "suffix": "s", "user": "u", "stream": true,
        "stream_options": {"include_usage": null}}));
    samples
}

fn embeddings_samples() -> Vec<Value> {
    vec![
        json!({"input": ["a", "b", [1]], "dimensions": 4, "encoding_format": "base64"}),
        json!({"input": "a", "model": "m", "input_type": "query", "encoding_format": "float"}),
        json!({"input": [1, 2, 3, 4], "input_type": null}),
    ]
}

fn image_samples() -> Vec<Value> {
    let image = "data:image/png;base64,aGk=";
    vec![
        json!({"input": [{"image": image, "text": "t"}, {"image": "DATA:IMAGE/x;y=1;base64,aGkh"}],
        "model": "m", "dimensions": 4, "encoding_format": "int8", "input_type": "text"}),
    ]
}

fn chat_endpoints() -> [Endpoint; 2] {
    [
        Endpoint {
            name: "chat",
            schema: validator(|g| ChatCompletionsRequest::schema(g, Vocabulary::INFERENCE)),
            parse: |body| {
                nothing_extra(&ChatCompletionsRequest::parse(body, Vocabulary::INFERENCE)?)
            },
            silent: super::chat_completions::NAMES.openai,
            samples: chat_samples(),
        },
        Endpoint {
            name: "chat of OpenAI",
            schema: validator(|g| ChatCompletionsRequest::schema(g, Vocabulary::OPENAI)),
            parse: |body| {
                let parsed = ChatCompletionsRequest::parse(body, Vocabulary::OPENAI)?;
                parsed.admit().map(drop)
            },
            silent: &[],
            samples: openai_chat_samples(),
        },
    ]
}

fn completions_endpoints() -> [Endpoint; 2] {
    [
        Endpoint {
            name: "completions",
            schema: validator(|g| CompletionsRequest::schema(g, Vocabulary::INFERENCE)),
            parse: |body| nothing_extra(&CompletionsRequest::parse(body, Vocabulary::INFERENCE)?),
            silent: super::completions::NAMES.openai,
            samples: completions_samples(),
        },
        Endpoint {
            name: "completions of OpenAI",
            schema: validator(|g| CompletionsRequest::schema(g, Vocabulary::OPENAI)),
            parse: |body| CompletionsRequest::parse(body, Vocabulary::OPENAI)?.admit().map(drop),
            silent: &[],
            samples: openai_completions_samples(),
        },
    ]
}

fn embedding_endpoints() -> [Endpoint; 3] {
    [
        Endpoint {
            name: "embeddings",
            schema: validator(|g| EmbeddingsRequest::schema(g, Vocabulary::INFERENCE, MOST_INPUTS)),
            parse: |body| {
                let parsed = EmbeddingsRequest::parse(body, Vocabulary::INFERENCE, MOST_INPUTS)?;
                nothing_extra(&parsed)
            },
            silent: &["user"],
            samples: embeddings_samples(),
        },
        Endpoint {
            name: "embeddings of OpenAI",
            schema: validator(|g| EmbeddingsRequest::schema(g, Vocabulary::OPENAI, MOST_INPUTS)),
            parse: |body| {
                EmbeddingsRequest::parse(body, Vocabulary::OPENAI, MOST_INPUTS)?.admit().map(drop)
            },
            silent: &[],
            samples: embeddings_samples(),
        },
        Endpoint {
            name: "image embeddings",
            schema: validator(|g| {
                ImageEmbeddingsRequest::schema(g, Vocabulary::INFERENCE, MOST_INPUTS)
            }),
            parse: |body| {
                let parsed =
                    ImageEmbeddingsRequest::parse(body, Vocabulary::INFERENCE, MOST_INPUTS)?;
                images(&parsed.request)?;
                nothing_extra(&parsed)
            },
            silent: &["user"],
            samples: image_samples(),
        },
    ]
}

fn safety_endpoints() -> [Endpoint; 3] {
    [
        Endpoint {
            name: "text:analyze",
            schema: validator(AnalyzeTextRequest::json_schema),
            parse: |body| AnalyzeTextRequest::parse(body).map(drop),
            silent: &[],
            samples: vec![json!({"text": "a", "categories": ["Hate"], "blocklistNames": ["a"],
                "haltOnBlocklistHit": true, "outputType": "EightSeverityLevels"})],
        },
        Endpoint {
            name: "image:analyze",
            schema: validator(AnalyzeImageRequest::json_schema),
            parse: |body| match AnalyzeImageRequest::parse(body)?.image {
                ImageSource::Content(_) => Ok(()),
                ImageSource::BlobUrl(_) => Err(Fault::invalid("image.blobUrl", "not fetched")),
            },
            silent: &[],
            samples: vec![json!({"image": {"content": "aGkh", "blobUrl": null},
                "categories": ["Sexual"], "outputType": "FourSeverityLevels"})],
        },
        Endpoint {
            name: "text:shieldPrompt",
            schema: validator(ShieldPromptRequest::json_schema),
            parse: |body| ShieldPromptRequest::parse(body).map(drop),
            silent: &[],
            samples: vec![
                json!({"userPrompt": "a", "documents": ["b"]}),
                json!({"documents": ["b"]}),
                json!({"userPrompt": "a"}),
            ],
        },
    ]
}

/// Changes one place of a body: another value, a property less, or one more.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let deeper = dice.below(4) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = dice.below(fields.len());
            if let Some((_, field)) = fields.iter_mut().nth(at) {
                mutate(field, dice);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = dice.below(items.len());
            mutate(&mut items[at], dice);
        }
        Value::Object(fields) if dice.below(3) > 0 => {
            if dice.below(2) == 0 && !fields.is_empty() {
                let name = fields.keys().nth(dice.below(fields.len())).cloned().unwrap();
                fields.remove(&name);
            } else {
                let name = dice.one_of(KEYS).to_owned();
                let random = dice.value(3);
                fields.insert(name, random);
            }
        }
        Value::Array(items) if dice.below(3) > 0 => {
            let copy = items.first().cloned().unwrap_or_else(|| dice.value(3));
            match dice.below(3) {
                0 => items.clear(),
                1 => items.extend([copy.clone(), copy]),
                _ => items.push(dice.value(3)),
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => *value = scalar(dice),
    }
}

/// A value at some edge.
fn scalar(dice: &mut Dice) -> Value {
    let edges = json!([
        null, true, false, 0, -1, 1, 2, 3.0, 2.5, -2, 5, 6, 20, 21, 100, 128, 129, -2.01, 65_536, 65_537,
        i32::MAX, 2_147_483_648_i64, u64::MAX, i64::MIN, 1e300, [], {},
        "x".repeat(64), "x".repeat(65), "x".repeat(100), "x".repeat(101), "x".repeat(36), "x".repeat(46),
        "ß".repeat(10_000), "ß".repeat(10_001), ["a", "a", "a", "a", "a"], vec!["a"; 65],
        {"+7": 1}, {"1234567890": 1}, {"7": null, "x": null}, {"7": 101},
        "aGk", "aGk=", "aGl=", "data:image/png;base64,aGk= ", "data:image/;base64,aGk=",
        "data:image/png,aGk=", "http://", "HTTPS://x", "data:text/plain;base64,aGk=", "any", "f",
    ]);
    let edges = edges.as_array().unwrap();
    match dice.below(3) {
        0 => json!(dice.one_of(WORDS)),
        _ => edges[dice.below(edges.len())].clone(),
    }
}

impl Endpoint {
    /// Whether both take the body; a sentence where they differ without an excuse.
    fn judge(&self, body: &Value) -> Result<bool, String> {
        let parsed = (self.parse)(body.to_string().as_bytes());
        let mut described = body.clone();
        if let Value::Object(fields) = &mut described {
            fields.retain(|name, value| !value.is_null() || !self.silent.contains(&name.as_str()));
        }
        let valid = self.schema.is_valid(&described);
        match parsed {
            Ok(()) if valid => Ok(true),
            Err(_) if !valid => Ok(false),
            Ok(()) => {
                let why = self.schema.validate(&described).unwrap_err().to_string();
                Err(format!("{}: the schema refuses {body}: {why}", self.name))
            }
            Err(fault) if fault.target.as_deref().is_some_and(|t| CROSS_FIELD.contains(&t)) => {
                Ok(false)
            }
            Err(fault) => Err(format!("{}: the parser refuses {body}: {fault}", self.name)),
        }
    }
}

#[test]
fn schemas_take_what_parsers_take_and_nothing_else() {
    let mut dice = Dice(SEED);
    let endpoints = chat_endpoints()
        .into_iter()
        .chain(completions_endpoints())
        .chain(embedding_endpoints())
        .chain(safety_endpoints());
    let mut wrong = Vec::new();
    for endpoint in endpoints {
        let mut taken = 0;
        for sample in &endpoint.samples {
            assert_eq!(endpoint.judge(sample), Ok(true), "{sample}");
            for _ in 0..MUTANTS {
                let mut body = sample.clone();
                for _ in 0..=dice.below(2) {
                    mutate(&mut body, &mut dice);
                }
                match endpoint.judge(&body) {
                    Ok(both) => taken += usize::from(both),
                    Err(sentence) => wrong.push(sentence),
                }
            }
        }
        let all = MUTANTS * endpoint.samples.len();
        assert!(
            taken > all / 50 && taken < all * 49 / 50,
            "{}: {taken} of {all} were taken, which tells nothing",
            endpoint.name
        );
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_the_operator_admits_are_in_the_schema() {
    let also = ["n".to_owned(), "top_k".to_owned()];
    let vocabulary = Vocabulary { dialect: Dialect::Inference, also_known: &also };
    let schema = validator(|g| ChatCompletionsRequest::schema(g, vocabulary));
    let hello = |name: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body[name] = value;
        schema.is_valid(&body)
    };
    assert!(hello("n", json!(2)) && hello("top_k", json!("anything")));
    assert!(!hello("n", json!(0)) && !hello("user", json!("u")));
}
