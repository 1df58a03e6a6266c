//! What a valid request asks that its deployment cannot do: the only source of a 422.
//!
//! Separate from parsing, which knows no deployment, and from translation, which must not refuse. All offences of a request
//! are told at once; the first is the one that flat bodies name.

use crate::context::Family;
use crate::deployments::{Deployment, Fit, Parameter, ParameterLimits, Purpose};
use api_types::rest::chat_completions::{ContentPart, Modality, ResponseFormat};
use api_types::rest::embeddings::{EmbeddingOptions, InputType};
use api_types::rest::{
    ChatCompletionsRequest, CompletionsRequest, EmbeddingsRequest, Fields, ImageEmbeddingsRequest,
    Parsed, Sampling,
};
use api_types::{Detail, Fault};
use serde_json::{Value, json};

/// The offences found so far.
#[derive(Debug, Default)]
struct Offences {
    first: Option<Fault>,
}

impl Offences {
    /// The model takes the parameter, but not this value.
    fn add(&mut self, target: impl Into<String>, input: Value, message: impl Into<String>) {
        self.note(Fault::unsupported(target, input, message));
    }

    /// The model does not take the parameter at all.
    fn refuse(&mut self, target: impl Into<String>, input: Value, message: impl Into<String>) {
        self.note(Fault::refused(target, input, message));
    }

    fn note(&mut self, fault: Fault) {
        match &mut self.first {
            None => self.first = Some(fault),
            Some(first) => first.details.push(Detail {
                code: fault.code.as_str().to_owned(),
                message: fault.message,
                target: fault.target.unwrap_or_default(),
            }),
        }
    }

    fn into_result<T>(self, value: T) -> Result<T, Fault> {
        self.first.map_or(Ok(value), Err)
    }

    /// Joins what the model takes of `extra` and `others`; names it does not take are refused on the inference routes, where
    /// they were passed through on purpose, and ignored on OpenAI's, where they are ordinary (section 15).
    fn extras(
        &mut self,
        deployment: &Deployment,
        family: Family,
        extra: Fields,
        others: Fields,
    ) -> Extras {
        let (mut taken, dropped): (Fields, Fields) =
            others.into_iter().partition(|(name, _)| deployment.takes_extra(name));
        let mut dropped: Vec<String> = dropped.into_iter().map(|(name, _)| name).collect();
        for (name, value) in extra {
            if deployment.takes_extra(&name) {
                taken.insert(name, value);
            } else if family.is_openai() {
                dropped.push(name);
            } else {
                let message = format!("the model does not take the parameter `{name}`");
                self.refuse(name, value, message);
            }
        }
        Extras { taken, dropped }
    }
}

/// What becomes of parameters that are not part of the API.
#[derive(Debug, Default)]
struct Extras {
    taken: Fields,
    dropped: Vec<String>,
}

/// A request that its deployment can answer, and the extra parameters to hand to the model.
#[derive(Debug, Clone)]
pub struct Checked<T> {
    /// The request.
    pub request: T,
    /// A JSON object as text; empty means none.
    pub extra_json: String,
    /// Names of those that the model does not take and that do no harm.
    pub dropped: Vec<String>,
}

impl<T> Checked<T> {
    fn new(request: T, Extras { taken, dropped }: Extras) -> Self {
        let extra_json =
            if taken.is_empty() { String::new() } else { Value::Object(taken).to_string() };
        Self { request, extra_json, dropped }
    }
}

/// Checks a conversation.
///
/// # Errors
/// 422 with every offence.
pub fn chat(
    parsed: Parsed<ChatCompletionsRequest>,
    deployment: &Deployment,
    family: Family,
) -> Result<Checked<ChatCompletionsRequest>, Fault> {
    let Parsed { mut request, extra } = parsed;
    let abilities = deployment.chat();
    let mut offences = Offences::default();
    let format = request.response_format.as_ref();
    let fits = match format {
        None | Some(ResponseFormat::Text) => true,
        Some(ResponseFormat::JsonObject) => abilities.json_object,
        Some(ResponseFormat::JsonSchema { .. }) => abilities.json_schema,
    };
    if !fits {
        let kind = format.map_or("", ResponseFormat::as_str);
        offences.add(
            "response_format",
            json!(kind),
            format!("the model cannot be held to `{kind}`"),
        );
    }
    if !request.tools.is_empty() && !abilities.tools {
        let names: Vec<_> = request.tools.iter().map(|t| t.name.as_str()).collect();
        offences.refuse("tools", json!(names), "the model does not understand tools");
    }
    if request.modalities.contains(&Modality::Audio) {
        offences.add("modalities", json!("audio"), "the model does not answer in sound");
    }
    if request.logprobs && !abilities.logprobs {
        offences.refuse("logprobs", json!(true), "the model does not report log probabilities");
    }
    sampling(&mut offences, &request.sampling, &abilities.parameters);
    for (i, message) in request.messages.iter().enumerate() {
        for (j, part) in message.content.iter().enumerate() {
            let kind = match part {
                ContentPart::ImageUrl { .. } if !abilities.images => "image_url",
                ContentPart::InputAudio { .. } if !abilities.audio => "input_audio",
                ContentPart::AudioUrl(_) if !abilities.audio => "audio_url",
                ContentPart::Text(_)
                | ContentPart::ImageUrl { .. }
                | ContentPart::InputAudio { .. }
                | ContentPart::AudioUrl(_) => continue,
            };
            let target = format!("messages.{i}.content.{j}");
            offences.add(
                target,
                json!(kind),
                format!("the model does not understand parts of type `{kind}`"),
            );
        }
    }
    let extra = offences.extras(deployment, family, extra, std::mem::take(&mut request.others));
    offences.into_result(Checked::new(request, extra))
}

/// Checks prompts to continue.
///
/// # Errors
/// 422 with every offence.
pub fn completions(
    parsed: Parsed<CompletionsRequest>,
    deployment: &Deployment,
    family: Family,
) -> Result<Checked<CompletionsRequest>, Fault> {
    let Parsed { mut request, extra } = parsed;
    let abilities = deployment.chat();
    let mut offences = Offences::default();
    if let Some(logprobs) = request.logprobs.filter(|_| !abilities.logprobs) {
        offences.refuse("logprobs", json!(logprobs), "the model does not report log probabilities");
    }
    if let Some(suffix) = request.suffix.as_ref().filter(|s| !s.is_empty() && !abilities.suffix) {
        let message = "the model was not trained to fill gaps; leave `suffix` out";
        offences.refuse("suffix", json!(suffix), message);
    }
    sampling(&mut offences, &request.sampling, &abilities.parameters);
    let extra = offences.extras(deployment, family, extra, std::mem::take(&mut request.others));
    offences.into_result(Checked::new(request, extra))
}

/// Checks texts to embed.
///
/// # Errors
/// 422 with every offence.
pub fn embeddings(
    parsed: Parsed<EmbeddingsRequest>,
    deployment: &Deployment,
    family: Family,
) -> Result<Checked<EmbeddingsRequest>, Fault> {
    let Parsed { mut request, extra } = parsed;
    let mut offences = Offences::default();
    options(&mut offences, &request.options, deployment);
    let extra = offences.extras(deployment, family, extra, std::mem::take(&mut request.others));
    offences.into_result(Checked::new(request, extra))
}

/// Checks images to embed.
///
/// # Errors
/// 422 with every offence.
pub fn image_embeddings(
    parsed: Parsed<ImageEmbeddingsRequest>,
    deployment: &Deployment,
    family: Family,
) -> Result<Checked<ImageEmbeddingsRequest>, Fault> {
    let Parsed { mut request, extra } = parsed;
    let mut offences = Offences::default();
    options(&mut offences, &request.options, deployment);
    let (count, most) = (request.input.len(), deployment.embedding().images_per_call);
    if most > 0 && count > most as usize {
        let message = format!("the model takes at most {most} images in one request");
        offences.add("input", json!(count), message);
    }
    if !deployment.embedding().image_with_text {
        for (i, input) in request.input.iter().enumerate() {
            if let Some(text) = input.text.as_ref().filter(|t| !t.is_empty()) {
                let message = "the model takes no text along with an image";
                offences.add(format!("input.{i}.text"), json!(text), message);
            }
        }
    }
    let extra = offences.extras(deployment, family, extra, std::mem::take(&mut request.others));
    offences.into_result(Checked::new(request, extra))
}

fn options(offences: &mut Offences, options: &EmbeddingOptions, deployment: &Deployment) {
    let abilities = deployment.embedding();
    if let Some(length) = options.dimensions {
        let full = abilities.full_dimensions;
        let fits = length == full
            || abilities.dimensions.contains(&length)
            || (abilities.any_dimensions && (full == 0 || length < full));
        let message =
            format!("the model cannot make vectors of length {length}; its own is {full}");
        if !fits && (abilities.any_dimensions || !abilities.dimensions.is_empty()) {
            offences.add("dimensions", json!(length), message);
        } else if !fits {
            offences.refuse("dimensions", json!(length), message);
        }
    }
    if !abilities.encodings.contains(&options.encoding_format) {
        let word = options.encoding_format.as_str();
        let message = format!("vectors of this model are not written as `{word}`");
        offences.add("encoding_format", json!(word), message);
    }
    let known = match options.input_type {
        InputType::Text => true,
        InputType::Query => abilities.input_types.contains(&Purpose::Query),
        InputType::Document => abilities.input_types.contains(&Purpose::Document),
    };
    if !known {
        let word = options.input_type.as_str();
        offences.add("input_type", json!(word), format!("the model knows no input type `{word}`"));
    }
}

/// Checks what the model takes less of than the API allows.
fn sampling(offences: &mut Offences, sampling: &Sampling, limits: &ParameterLimits) {
    let Sampling {
        temperature,
        top_p,
        frequency_penalty,
        presence_penalty,
        max_tokens,
        stop,
        seed,
        n,
        logit_bias,
    } = sampling;
    let count = |value: &Option<u32>| value.map(|v| (f64::from(v), json!(v)));
    let number = |value: &Option<f32>| value.map(|v| (as_written(v), json!(as_written(v))));
    // Of these the value plays no part.
    let stop = (!stop.is_empty()).then(|| (0.0, json!(stop)));
    let bias = (!logit_bias.is_empty()).then(|| (0.0, json!(logit_bias)));
    for (parameter, value) in [
        (Parameter::Temperature, number(temperature)),
        (Parameter::TopP, number(top_p)),
        (Parameter::FrequencyPenalty, number(frequency_penalty)),
        (Parameter::PresencePenalty, number(presence_penalty)),
        (Parameter::MaxTokens, count(max_tokens)),
        (Parameter::N, count(n)),
        (Parameter::Seed, seed.map(|seed| (0.0, json!(seed)))),
        (Parameter::Stop, stop),
        (Parameter::LogitBias, bias),
    ] {
        let Some((value, input)) = value else { continue };
        let name = parameter.as_str();
        match limits.fit(parameter, value) {
            Fit::Taken => {}
            Fit::OutOfRange(least, most) => {
                let message = format!("the model takes `{name}` from {least} to {most}");
                offences.add(name, input, message);
            }
            Fit::Refused => {
                offences.refuse(name, input, format!("the model does not take `{name}`"));
            }
        }
    }
}

/// The number as the caller wrote it: 0.7 and not the nearest 32-bit number to it.
fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests;
