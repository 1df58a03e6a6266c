//! From a request to a job: template, tokens, limits, grammar; everything that can be wrong is found here.
//!
//! Separate from the engine, on a thread of its own: this work must not hold up the decoding of others, and its stack is
//! large because the regular expressions of some tokenisers recurse over the prompt.

use super::compose::Rules;
use super::grammar;
use super::job::{Job, Prompt, Sink};
use super::prompt::ChatTemplate;
use super::sampling::Plan;
use crate::backend::{self, CompleteRequest, GenerateRequest, Sampling, ToolChoice};
use crate::config::SamplingConfig;
use crate::error::ChatError;
use crate::tools::Expected;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use serde_json::json;
use std::sync::Arc;

/// Most sequences of one request: as many choices as the API allows.
const MOST_SEQUENCES: usize = 128;
/// Most alternatives per token; the API's limit.
const MOST_ALTERNATIVES: u32 = 20;

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Intake {
    /// A conversation.
    Generate(Box<GenerateRequest>),
    /// Prompts.
    Complete(Box<CompleteRequest>),
}

/// Makes jobs for one model.
#[derive(Debug)]
pub(crate) struct Preparer {
    pub(crate) model: Arc<LlamaModel>,
    /// None for a base model.
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) sampling: SamplingConfig,
    /// Name of the model, for errors.
    pub(crate) name: String,
    /// Tokens of prompt and answer together.
    pub(crate) limit: u32,
    /// Bytes of the longest token: more than `limit` times that cannot fit.
    pub(crate) longest_token: usize,
}

impl Preparer {
    /// The job that `intake` asks for.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    pub(crate) fn prepare(&self, intake: Intake) -> Result<Job, ChatError> {
        match intake {
            Intake::Generate(request) => self.generate(&request),
            Intake::Complete(request) => self.complete(*request),
        }
    }

    fn generate(&self, request: &GenerateRequest) -> Result<Job, ChatError> {
        let template = self.template.as_ref().ok_or_else(|| ChatError::WrongMethod {
            model: self.name.clone(),
            method: "chat completions; its file has no chat template",
        })?;
        let schema = grammar::schema_for(request)?;
        let forced = grammar::is_forced(request)?;
        let plan = self.plan(&request.sampling, &request.extra)?;
        let rendered = template.render(request)?;
        let tokens = self.tokens(rendered.pieces.iter().map(String::as_str), "messages")?;
        self.check_length(tokens.len(), request.sampling.max_tokens, "messages")?;
        let grammar =
            schema.as_ref().map(|schema| grammar::build(&self.model, schema)).transpose()?;
        let calls = !request.tools.is_empty() && request.tool_choice != ToolChoice::None;
        let tools = calls.then(|| Expected {
            names: request.tools.iter().map(|tool| tool.name.clone()).collect(),
            forced,
            most: if forced || !request.parallel_tool_calls { 1 } else { usize::MAX },
        });
        let choices = request.sampling.n.max(1);
        check_count(1, choices, "n")?;
        Ok(Job {
            prompts: vec![Prompt { tokens: tokens.into(), echo: None }],
            candidates: choices,
            choices,
            max_tokens: request.sampling.max_tokens,
            plan,
            // With a grammar the model has no room for a thought, so there is none to look for.
            rules: Rules {
                stop: request.sampling.stop.clone(),
                tools,
                thinking: rendered.thinking.filter(|_| grammar.is_none()),
            },
            grammar,
            top_logprobs: top_logprobs(&request.sampling)?,
        })
    }

    fn complete(&self, request: CompleteRequest) -> Result<Job, ChatError> {
        let CompleteRequest { model: _, prompts, sampling, suffix, echo, best_of, extra } = request;
        let plan = self.plan(&sampling, &extra)?;
        let choices = sampling.n.max(1);
        let candidates = best_of.unwrap_or(choices);
        if candidates < choices {
            return Err(ChatError::invalid(
                "best_of",
                format!("`best_of` must be at least `n`, which is {choices}"),
            ));
        }
        if prompts.is_empty() {
            return Err(ChatError::invalid("prompt", "`prompt` must hold at least one prompt"));
        }
        check_count(prompts.len(), candidates, if best_of.is_some() { "best_of" } else { "n" })?;
        let mut made = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            made.push(self.prompt(prompt, suffix.as_deref(), (echo, sampling.max_tokens))?);
        }
        Ok(Job {
            prompts: made,
            candidates,
            choices,
            max_tokens: sampling.max_tokens,
            plan,
            grammar: None,
            top_logprobs: top_logprobs(&sampling)?,
            rules: Rules { stop: sampling.stop, tools: None, thinking: None },
        })
    }

    fn prompt(
        &self,
        prompt: backend::Prompt,
        suffix: Option<&str>,
        (echo, max_tokens): (bool, Option<u32>),
    ) -> Result<Prompt, ChatError> {
        let (mut tokens, text) = match prompt {
            backend::Prompt::Text(text) => (self.tokens([text.as_str()], "prompt")?, Some(text)),
            backend::Prompt::Tokens(ids) => (self.known(&ids)?, None),
        };
        let echo: Option<Arc<str>> = echo.then(|| match text {
            Some(text) => text.into(),
            None => {
                String::from_utf8_lossy(&self.model.vocab().detokenize(&tokens, false, true)).into()
            }
        });
        if let Some(suffix) = suffix.filter(|s| !s.is_empty()) {
            tokens = self.around_gap(tokens, suffix)?;
        }
        if tokens.is_empty() {
            // An empty prompt is the beginning of a text.
            let vocab = self.model.vocab();
            let start = [vocab.bos(), vocab.eos()].into_iter().find(|t| t.0 >= 0);
            tokens.push(start.ok_or_else(|| {
                ChatError::invalid("prompt", "the model needs a prompt that is not empty")
            })?);
        }
        self.check_length(tokens.len(), max_tokens, "prompt")?;
        Ok(Prompt { tokens: tokens.into(), echo })
    }

    fn plan(
        &self,
        sampling: &Sampling,
        extra: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Plan, ChatError> {
        Plan::new(sampling, extra, &self.sampling, (self.model.n_vocab(), self.limit))
    }

    /// Tokens of a text in pieces, with what the model wants at the beginning of a text.
    fn tokens<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a str> + Clone,
        target: &'static str,
    ) -> Result<Vec<LlamaToken>, ChatError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let bytes: usize = pieces.clone().into_iter().map(str::len).sum();
        if bytes > limit.saturating_mul(self.longest_token) {
            let message = format!(
                "the prompt has more than the {limit} tokens that the model takes; shorten it"
            );
            return Err(ChatError::ContextLength { message, target });
        }
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(bytes / 3 + 8);
        for piece in pieces {
            tokens.extend(vocab.tokenize(piece.as_bytes(), false, true));
        }
        let bos = vocab.bos();
        if vocab.should_add_bos() && bos.0 >= 0 && tokens.first() != Some(&bos) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    fn known(&self, ids: &[u32]) -> Result<Vec<LlamaToken>, ChatError> {
        let most = self.model.n_vocab();
        let check = |id: &u32| {
            let token = i32::try_from(*id).ok().filter(|t| *t < most).map(LlamaToken);
            token.ok_or_else(|| {
                ChatError::invalid(
                    "prompt",
                    format!("`{id}` is no token of this model; ids go from 0 to {}", most - 1),
                )
            })
        };
        ids.iter().map(check).collect()
    }

    /// Whether the model was trained to fill gaps.
    pub(crate) fn fills_gaps(&self) -> bool {
        let vocab = self.model.vocab();
        [vocab.fim_pre(), vocab.fim_suf(), vocab.fim_mid()].iter().all(|token| token.0 >= 0)
    }

    /// The prompt for filling the gap before `suffix`, for models that were trained to.
    fn around_gap(
        &self,
        before: Vec<LlamaToken>,
        suffix: &str,
    ) -> Result<Vec<LlamaToken>, ChatError> {
        let vocab = self.model.vocab();
        let (prefix, after, middle) = (vocab.fim_pre(), vocab.fim_suf(), vocab.fim_mid());
        if !self.fills_gaps() {
            return Err(ChatError::unsupported(
                "suffix",
                json!(suffix),
                "the model was not trained to fill gaps; leave `suffix` out",
            ));
        }
        let mut tokens = vec![prefix];
        tokens.extend(before);
        tokens.push(after);
        tokens.extend(vocab.tokenize(suffix.as_bytes(), false, false));
        tokens.push(middle);
        Ok(tokens)
    }

    fn check_length(
        &self,
        prompt: usize,
        max_tokens: Option<u32>,
        target: &'static str,
    ) -> Result<(), ChatError> {
        let limit = self.limit;
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        let message = match max_tokens {
            _ if prompt >= limit => format!(
                "the prompt has {prompt} tokens, but the model takes {limit} for prompt and answer together; shorten it"
            ),
            Some(wanted) if prompt.saturating_add(wanted) > limit => format!(
                "the prompt has {prompt} tokens and `max_tokens` asks for {wanted} more, but the model takes {limit} \
                 together; shorten the prompt or lower `max_tokens`"
            ),
            Some(_) | None => return Ok(()),
        };
        Err(ChatError::ContextLength { message, target })
    }
}

/// Prepares what comes until all senders are gone, and hands it to `hand_on`.
pub(crate) fn run(
    preparer: &Preparer,
    intake: &std::sync::mpsc::Receiver<(Intake, Sink)>,
    hand_on: impl Fn(Job, Sink),
) {
    while let Ok((request, sink)) = intake.recv() {
        if sink.begun.is_closed() {
            continue;
        }
        match preparer.prepare(request) {
            Ok(job) => hand_on(job, sink),
            Err(error) => {
                // A caller that left does not miss it.
                let _gone = sink.begun.send(Err(error));
            }
        }
    }
}

fn check_count(prompts: usize, candidates: u32, target: &str) -> Result<(), ChatError> {
    let total = prompts.saturating_mul(usize::try_from(candidates).unwrap_or(usize::MAX));
    if total > MOST_SEQUENCES {
        let message = format!(
            "the request asks for {total} answers; at most {MOST_SEQUENCES} are possible at once"
        );
        return Err(ChatError::invalid(target, message));
    }
    Ok(())
}

fn top_logprobs(sampling: &Sampling) -> Result<Option<usize>, ChatError> {
    match sampling.top_logprobs {
        Some(top) if top > MOST_ALTERNATIVES => Err(ChatError::invalid(
            "top_logprobs",
            format!("`top_logprobs` must be from 0 to {MOST_ALTERNATIVES}"),
        )),
        top => Ok(top.and_then(|top| usize::try_from(top).ok())),
    }
}
