//! How the next token is chosen: the request's wishes over the model's defaults, as llama.cpp samplers.
//!
//! Order: bias, penalties, temperature, then the cuts (`top_k`, `typical_p`, `top_p`, `min_p`), then the draw; so
//! `top_p` is of the distribution that temperature shaped, as OpenAI has it. Penalties follow OpenAI's formula: a logit
//! loses `count * frequency + (count > 0) * presence`, counted over generated tokens only. The invariant: a grammar that
//! allows nothing ends the answer, and is never asked again, because llama.cpp would abort.

use crate::backend::Sampling;
use crate::config::SamplingConfig;
use crate::error::ChatError;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llama_cpp_2::token::logit_bias::LlamaLogitBias;
use serde_json::{Map, Value};

/// Parameters beyond the API that this engine takes when they are passed through.
pub(crate) const EXTRA_PARAMETERS: [&str; 6] =
    ["top_k", "min_p", "typical_p", "repeat_penalty", "repetition_penalty", "repeat_last_n"];
/// The value that makes llama.cpp choose a seed by itself.
const RANDOM_SEED: u32 = u32::MAX;
/// At least one token always stays.
const MIN_KEEP: usize = 1;

/// A request's way of choosing tokens, checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    temperature: f32,
    top_p: f32,
    top_k: i32,
    min_p: f32,
    typical_p: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    repeat_penalty: f32,
    repeat_last_n: i32,
    seed: Option<u32>,
    bias: Vec<(i32, f32)>,
    vocabulary: i32,
    window: i32,
}

impl Plan {
    /// What `request` and `extra` ask for, over `defaults`, for a model of `vocabulary` tokens and `window` context.
    ///
    /// # Errors
    /// A value out of range, a token outside the vocabulary, or an extra parameter that this engine does not know.
    pub(crate) fn new(
        request: &Sampling,
        extra: &Map<String, Value>,
        defaults: &SamplingConfig,
        (vocabulary, window): (i32, u32),
    ) -> Result<Self, ChatError> {
        let mut plan = Self {
            temperature: within("temperature", request.temperature, 0.0..=2.0)?
                .unwrap_or(defaults.temperature),
            top_p: within("top_p", request.top_p, 0.0..=1.0)?.unwrap_or(defaults.top_p),
            top_k: i32::try_from(defaults.top_k).unwrap_or(i32::MAX),
            min_p: defaults.min_p,
            typical_p: 1.0,
            frequency_penalty: within("frequency_penalty", request.frequency_penalty, -2.0..=2.0)?
                .unwrap_or(0.0),
            presence_penalty: within("presence_penalty", request.presence_penalty, -2.0..=2.0)?
                .unwrap_or(0.0),
            repeat_penalty: defaults.repeat_penalty,
            repeat_last_n: i32::try_from(defaults.repeat_last_n).unwrap_or(i32::MAX),
            seed: request.seed.map(fold_seed),
            bias: Vec::with_capacity(request.logit_bias.len()),
            vocabulary,
            window: i32::try_from(window).unwrap_or(i32::MAX),
        };
        for (token, bias) in &request.logit_bias {
            let id = i32::try_from(*token).ok().filter(|id| *id < vocabulary);
            let id = id.ok_or_else(|| {
                let most = vocabulary - 1;
                ChatError::invalid(
                    "logit_bias",
                    format!("`{token}` is no token of this model; ids go from 0 to {most}"),
                )
            })?;
            let bias = within("logit_bias", Some(*bias), -100.0..=100.0)?.unwrap_or(0.0);
            plan.bias.push((id, bias));
        }
        plan.bias.sort_by_key(|(id, _)| *id);
        for (name, value) in extra {
            plan.set_extra(name, value)?;
        }
        Ok(plan)
    }

    fn set_extra(&mut self, name: &str, value: &Value) -> Result<(), ChatError> {
        match name {
            "top_k" => self.top_k = count(name, value)?,
            "repeat_last_n" => self.repeat_last_n = count(name, value)?,
            "min_p" => self.min_p = number(name, value, 0.0..=1.0)?,
            "typical_p" => self.typical_p = number(name, value, 0.0..=1.0)?,
            "repeat_penalty" | "repetition_penalty" => {
                self.repeat_penalty = number(name, value, 0.01..=10.0)?;
            }
            unknown => {
                let known = EXTRA_PARAMETERS.join("`, `");
                let message = format!(
                    "the model does not take the parameter `{unknown}`; it takes `{known}`"
                );
                return Err(ChatError::unsupported(unknown, value.clone(), message));
            }
        }
        Ok(())
    }

    /// The sampler of choice `choice`, whose draws differ from those of the other choices. `prompt` counts for
    /// `repeat_penalty` alone.
    pub(crate) fn sampler(
        &self,
        choice: u32,
        prompt: &[LlamaToken],
        grammar: Option<LlamaSampler>,
    ) -> Sampler {
        let mut links = Vec::new();
        if !self.bias.is_empty() {
            let bias: Vec<_> =
                self.bias.iter().map(|(id, b)| LlamaLogitBias::new(LlamaToken(*id), *b)).collect();
            links.push(LlamaSampler::logit_bias(self.vocabulary, &bias));
        }
        if is_set(self.repeat_penalty - 1.0) && self.repeat_last_n > 0 {
            let recent = prompt
                .len()
                .saturating_sub(usize::try_from(self.repeat_last_n).unwrap_or(usize::MAX));
            let penalty = LlamaSampler::penalties(
                self.vocabulary,
                self.repeat_last_n,
                self.repeat_penalty,
                0.0,
                0.0,
            );
            links.push(penalty.with_tokens(prompt.iter().skip(recent)));
        }
        if is_set(self.frequency_penalty) || is_set(self.presence_penalty) {
            let (frequency, presence) = (self.frequency_penalty, self.presence_penalty);
            links.push(LlamaSampler::penalties(
                self.vocabulary,
                self.window,
                1.0,
                frequency,
                presence,
            ));
        }
        if self.temperature > 0.0 {
            links.push(LlamaSampler::temp(self.temperature));
            if self.top_k > 0 {
                links.push(LlamaSampler::top_k(self.top_k));
            }
            if self.typical_p < 1.0 {
                links.push(LlamaSampler::typical(self.typical_p, MIN_KEEP));
            }
            if self.top_p < 1.0 {
                links.push(LlamaSampler::top_p(self.top_p, MIN_KEEP));
            }
            if self.min_p > 0.0 {
                links.push(LlamaSampler::min_p(self.min_p, MIN_KEEP));
            }
            links.push(LlamaSampler::dist(
                self.seed.map_or(RANDOM_SEED, |seed| nth_seed(seed, choice)),
            ));
        } else {
            links.push(LlamaSampler::greedy());
        }
        Sampler { chain: LlamaSampler::chain(links, true), grammar }
    }
}

/// No token fits the grammar: the answer cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeadEnd;

/// Chooses the tokens of one choice.
#[derive(Debug)]
pub(crate) struct Sampler {
    chain: LlamaSampler,
    grammar: Option<LlamaSampler>,
}

impl Sampler {
    /// The next token after the raw `logits` of the last one; `scratch` is reused between calls.
    ///
    /// # Errors
    /// When the grammar allows no token at all.
    pub(crate) fn next(
        &mut self,
        logits: &[f32],
        scratch: &mut Scratch,
    ) -> Result<LlamaToken, DeadEnd> {
        scratch.fill(logits);
        self.chain.apply(&mut scratch.candidates);
        let token = scratch.candidates.selected_token().ok_or(DeadEnd)?;
        let Some(grammar) = &mut self.grammar else { return Ok(token) };
        // Checking one token is a hundred times cheaper than checking the vocabulary, and mostly enough.
        scratch.single(token);
        grammar.apply(&mut scratch.candidates);
        if scratch.candidates.data.iter().any(|t| t.logit().is_finite()) {
            return Ok(token);
        }
        scratch.fill(logits);
        grammar.apply(&mut scratch.candidates);
        scratch.candidates.data.retain(|t| t.logit().is_finite());
        if scratch.candidates.data.is_empty() {
            return Err(DeadEnd);
        }
        self.chain.apply(&mut scratch.candidates);
        scratch.candidates.selected_token().ok_or(DeadEnd)
    }

    /// Says that `token`, which does not end the generation, was taken.
    ///
    /// # Errors
    /// When it does not fit the grammar; the sampler must not be used again.
    pub(crate) fn accept(&mut self, token: LlamaToken) -> Result<(), DeadEnd> {
        self.chain.try_accept(token).map_err(|_| DeadEnd)?;
        match &mut self.grammar {
            Some(grammar) => grammar.try_accept(token).map_err(|_| DeadEnd),
            None => Ok(()),
        }
    }
}

/// Candidates of one draw: the vocabulary, once per engine instead of once per token.
#[derive(Debug)]
pub(crate) struct Scratch {
    candidates: LlamaTokenDataArray,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { candidates: LlamaTokenDataArray::new(Vec::new(), false) }
    }

    fn fill(&mut self, logits: &[f32]) {
        self.reset();
        let all = (0_i32..)
            .zip(logits)
            .map(|(id, logit)| LlamaTokenData::new(LlamaToken(id), *logit, 0.0));
        self.candidates.data.extend(all);
    }

    fn single(&mut self, token: LlamaToken) {
        self.reset();
        self.candidates.data.push(LlamaTokenData::new(token, 1.0, 0.0));
    }

    fn reset(&mut self) {
        self.candidates.data.clear();
        self.candidates.selected = None;
        self.candidates.sorted = false;
    }
}

fn within(
    name: &str,
    value: Option<f32>,
    range: std::ops::RangeInclusive<f32>,
) -> Result<Option<f32>, ChatError> {
    match value {
        Some(v) if !range.contains(&v) => Err(ChatError::invalid(
            name,
            format!("`{name}` must be a number from {} to {}", range.start(), range.end()),
        )),
        other => Ok(other),
    }
}

fn number(
    name: &str,
    value: &Value,
    range: std::ops::RangeInclusive<f32>,
) -> Result<f32, ChatError> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sampling takes no more than single precision"
    )]
    let number = value.as_f64().map_or(f32::NAN, |v| v as f32);
    within(name, Some(number), range).map(Option::unwrap_or_default)
}

fn count(name: &str, value: &Value) -> Result<i32, ChatError> {
    let number = value.as_u64().and_then(|v| i32::try_from(v).ok());
    number.ok_or_else(|| {
        ChatError::invalid(name, format!("`{name}` must be an integer that is not negative"))
    })
}

fn is_set(value: f32) -> bool {
    value.abs() > f32::EPSILON
}

/// 64 bits of seed in the 32 that the sampler takes.
fn fold_seed(seed: i64) -> u32 {
    let bytes = seed.to_le_bytes();
    let (mut low, mut high) = ([0; 4], [0; 4]);
    low.copy_from_slice(&bytes[..4]);
    high.copy_from_slice(&bytes[4..]);
    u32::from_le_bytes(low) ^ u32::from_le_bytes(high)
}

/// The seed of choice `choice`; never the value that means random.
fn nth_seed(seed: u32, choice: u32) -> u32 {
    let seed = seed.wrapping_add(choice);
    if seed == RANDOM_SEED { seed - 1 } else { seed }
}

#[cfg(test)]
mod tests;
