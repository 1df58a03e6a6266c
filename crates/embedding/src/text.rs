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
        Ok(Embedded { vectors, prompt_tokens, images: 0 })
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
        if let Err(OnnxError::UnknownToken(id)) = fitted {
            let message = format!(
                "token id {id} is not in the vocabulary of `{model}`; token ids must come from its own tokenizer, so send the \
                 text itself (LangChain: `check_embedding_ctx_length=False`)"
            );
            return Err(EmbeddingError::invalid(target, message));
        }
        let fitted = fitted.map_err(|error| EmbeddingError::from_onnx(model, error))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pooling::Pooling;
    use api_types::Fault;
    use async_trait::async_trait;
    use onnx::RowShape;
    use std::path::Path;

    /// Ids of the fixture: [CLS] 2, [SEP] 3, the 4, cat 5, sat 6, on 7, mat 8, query 11, passage 12, ":" 13.
    const TOKENIZER: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/tiny-bert/tokenizer.json");

    /// Answers the number of tokens and the first one after the begin.
    #[derive(Debug)]
    struct Fake;

    #[async_trait]
    impl Encoder for Fake {
        fn rows(&self) -> RowShape {
            RowShape { width: 2, per_token: false }
        }
        async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError> {
            let row = |item: &Item| match item {
                Item::Tokens(ids) => vec![ids.len() as f32, ids[1] as f32],
                Item::Tensor(_) => unreachable!(),
            };
            Ok(items.iter().map(row).collect())
        }
    }

    fn side(overflow: Overflow) -> TextSide {
        let prefixes =
            Prefixes { text: String::new(), query: "query: ".into(), document: "passage: ".into() };
        let tokenizer = Tokenizer::load(Path::new(TOKENIZER), 6).unwrap();
        let finish = Finish { rows: Fake.rows(), pooling: Pooling::None, normalize: false };
        let reader = Reader { tokenizer, prefixes, overflow };
        TextSide { model: "tiny".into(), encoder: Arc::new(Fake), reader, finish }
    }

    async fn embed(
        overflow: Overflow,
        texts: &[TextInput],
        purpose: Purpose,
    ) -> Result<Embedded, Fault> {
        let embedded = side(overflow).embed(texts.to_vec(), purpose, None, &Tasks::new()).await;
        embedded.map_err(Fault::from)
    }

    fn text(text: &str) -> TextInput {
        TextInput::Text(text.to_owned())
    }

    #[tokio::test]
    async fn usage_counts_what_was_embedded_with_special_tokens() {
        let texts = [text("cat"), text("the cat sat on the mat")];
        let embedded = embed(Overflow::Truncate, &texts, Purpose::Text).await.unwrap();
        assert_eq!(embedded.vectors, [[3.0, 5.0], [6.0, 4.0]]);
        assert_eq!(embedded.prompt_tokens, 9);
    }

    #[tokio::test]
    async fn a_long_text_can_be_refused_by_configuration() {
        let texts = [text("cat"), text("the cat sat on the mat")];
        let fault = embed(Overflow::Refuse, &texts, Purpose::Text).await.unwrap_err();
        assert_eq!(fault.code.as_str(), "context_length_exceeded");
        assert_eq!(fault.target.as_deref(), Some("input.1"));
        assert!(
            fault.message.contains("8 tokens") && fault.message.contains("at most 6"),
            "{}",
            fault.message
        );
    }

    #[tokio::test]
    async fn a_purpose_puts_its_words_before_the_input() {
        let query = embed(Overflow::Truncate, &[text("cat")], Purpose::Query).await.unwrap();
        assert_eq!(query.vectors, [[5.0, 11.0]]);
        let document = embed(Overflow::Truncate, &[TextInput::Tokens(vec![5])], Purpose::Document)
            .await
            .unwrap();
        assert_eq!(document.vectors, [[5.0, 12.0]]);
    }

    #[tokio::test]
    async fn empty_inputs_and_foreign_tokens_are_refused_by_name() {
        for (input, part) in [
            (text(""), "empty string"),
            (TextInput::Tokens(vec![]), "at least one token"),
            (TextInput::Tokens(vec![5, 50_000]), "token id 50000"),
        ] {
            let fault = embed(Overflow::Truncate, &[input], Purpose::Text).await.unwrap_err();
            assert_eq!(fault.code.http(), 400);
            assert_eq!(fault.target.as_deref(), Some("input"));
            assert!(fault.message.contains(part), "{}", fault.message);
        }
    }

    #[tokio::test]
    async fn a_huge_text_is_cut_before_it_is_tokenized_and_blanks_do_not_hide_its_words() {
        let huge = "cat ".repeat(1_000_000);
        let embedded = embed(Overflow::Truncate, &[text(&huge)], Purpose::Text).await.unwrap();
        assert_eq!(embedded.prompt_tokens, 6);
        let late = format!("{}cat", " ".repeat(5000));
        let embedded = embed(Overflow::Truncate, &[text(&late)], Purpose::Text).await.unwrap();
        assert_eq!(embedded.vectors, [[3.0, 5.0]]);
    }
}
