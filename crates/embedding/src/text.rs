//! Texts → token ids → vectors.
//!
//! Separate because the rules of a text are all here: what may be put before it, how long it may be, what its tokens cost.
//! Usage counts what the model saw: after cutting, special tokens and prefixes included.

use crate::config::Overflow;
use crate::embedder::{Embedded, Purpose, TextInput};
use crate::error::EmbeddingError;
use crate::pooling::Finish;
use chassis::Tasks;
use onnx::{Encoder, Fitted, Item, OnnxError, Tokenizer};
use serde::Deserialize;
use std::sync::Arc;

/// No text needs more bytes for one token than this, except for runs of blanks; what lies far behind the model's limit is not
/// even tokenized.
const MOST_BYTES_PER_TOKEN: usize = 256;

/// The half of a model that embeds texts.
#[derive(Debug, Clone)]
pub(crate) struct TextSide {
    pub(crate) model: String,
    pub(crate) encoder: Arc<dyn Encoder>,
    pub(crate) reader: Reader,
    pub(crate) finish: Finish,
}

/// Turns inputs into token ids.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) prefixes: Prefixes,
    pub(crate) overflow: Overflow,
}

/// Words that a model was trained to see before its inputs; empty for none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Prefixes {
    pub(crate) text: String,
    pub(crate) query: String,
    pub(crate) document: String,
}

impl Prefixes {
    fn of(&self, purpose: Purpose) -> &str {
        match purpose {
            Purpose::Text => &self.text,
            Purpose::Query => &self.query,
            Purpose::Document => &self.document,
        }
    }
}

impl TextSide {
    /// One vector per text.
    pub(crate) async fn embed(
        &self,
        texts: Vec<TextInput>,
        purpose: Purpose,
        dimensions: Option<usize>,
        tasks: &Tasks,
    ) -> Result<Embedded, EmbeddingError> {
        let (reader, model) = (self.reader.clone(), self.model.clone());
        // A full request takes tens of milliseconds to tokenize, which is too long for a thread that serves connections.
        let read = tasks.spawn_blocking(move || reader.read(&model, &texts, purpose)).await;
        let items = read.map_err(|error| self.failed(&error))??;
        let tokens: usize = items.iter().map(Item::cost).sum();
        let rows = self.encoder.encode(items).await;
        let rows = rows.map_err(|error| EmbeddingError::from_onnx(&self.model, error))?;
        let vectors = rows.into_iter().map(|row| self.finish.vector(row, dimensions)).collect();
        let prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        Ok(Embedded { model: self.model.clone(), vectors, prompt_tokens, images: 0 })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> EmbeddingError {
        EmbeddingError::Model { model: self.model.clone(), reason: error.to_string() }
    }
}

impl Reader {
    fn read(
        &self,
        model: &str,
        texts: &[TextInput],
        purpose: Purpose,
    ) -> Result<Vec<Item>, EmbeddingError> {
        let alone = texts.len() == 1;
        let target =
            |index: usize| if alone { "input".to_owned() } else { format!("input.{index}") };
        let read =
            |(index, text)| Ok(Item::Tokens(self.one(model, text, purpose, target(index))?));
        texts.iter().enumerate().map(read).collect()
    }

    fn one(
        &self,
        model: &str,
        text: &TextInput,
        purpose: Purpose,
        target: String,
    ) -> Result<Vec<u32>, EmbeddingError> {
        let prefix = self.prefixes.of(purpose);
        let fitted = match text {
            TextInput::Text(text) if text.is_empty() => {
                return Err(EmbeddingError::invalid(
                    target,
                    "an input must not be an empty string",
                ));
            }
            TextInput::Tokens(ids) if ids.is_empty() => {
                return Err(EmbeddingError::invalid(
                    target,
                    "an input must have at least one token",
                ));
            }
            TextInput::Text(text) => self.fit(prefix, text),
            TextInput::Tokens(ids) => self.tokenizer.fit_ids(prefix, ids),
        };
        let fitted = fitted.map_err(|error| match error {
            OnnxError::UnknownToken(id) => EmbeddingError::invalid(
                target.clone(),
                format!(
                    "token id {id} is not in the vocabulary of `{model}`; token ids must come from its own tokenizer, so send \
                     the text itself (LangChain: `check_embedding_ctx_length=False`)"
                ),
            ),
            other => EmbeddingError::from_onnx(model, other),
        })?;
        if fitted.is_cut() && self.overflow == Overflow::Refuse {
            let (tokens, limit) = (fitted.total, self.tokenizer.max_tokens());
            return Err(EmbeddingError::TooLong { target, model: model.to_owned(), tokens, limit });
        }
        Ok(fitted.ids)
    }

    fn fit(&self, prefix: &str, text: &str) -> Result<Fitted, OnnxError> {
        let enough = self.tokenizer.max_tokens() * MOST_BYTES_PER_TOKEN;
        if text.len() > enough {
            let head = text.get(..text.floor_char_boundary(enough)).unwrap_or(text);
            let fitted = self.tokenizer.fit(&format!("{prefix}{head}"))?;
            if fitted.is_cut() {
                return Ok(fitted);
            }
        }
        if prefix.is_empty() {
            self.tokenizer.fit(text)
        } else {
            self.tokenizer.fit(&format!("{prefix}{text}"))
        }
    }
}
