//! Text ⇄ token ids, cut to what the model takes.
//!
//! Separate because lengths are a contract of their own: a tokenizer file may carry a truncation and a padding that are not the
//! model's, so both are switched off and done here. Text that looks like a control token (`[SEP]`, `</s>`) stays text.

use crate::error::OnnxError;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tokenizers::Encoding;

/// Names that vocabularies give to the padding token, for files that do not say it.
const PAD_NAMES: [&str; 2] = ["[PAD]", "<pad>"];

/// A tokenizer and the longest input of its model; clones share it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    max_tokens: usize,
    pad_id: u32,
    /// Special tokens that every input begins with.
    prefix: Vec<u32>,
    /// Special tokens that every input ends with.
    suffix: Vec<u32>,
}

/// An input that fits the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// Special tokens included; at most `max_tokens`.
    pub ids: Vec<u32>,
    /// How many tokens there would be had nothing been cut, special tokens included.
    pub total: usize,
}

impl Fitted {
    /// Whether the end of the input was left out.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.total > self.ids.len()
    }
}

/// A stretch of a long text that fits the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Special tokens included; at most `max_tokens`.
    pub ids: Vec<u32>,
    /// Which bytes of the text, on character boundaries.
    pub span: Range<usize>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`. `max_tokens` is the longest input of the model, special tokens included.
    ///
    /// # Errors
    /// When the file is no tokenizer, or `max_tokens` leaves no room for text.
    pub fn load(file: &Path, max_tokens: usize) -> Result<Self, OnnxError> {
        let failed = |reason: String| OnnxError::Tokenizer { path: file.to_owned(), reason };
        let mut tokenizer =
            tokenizers::Tokenizer::from_file(file).map_err(|error| failed(error.to_string()))?;
        let declared = tokenizer.get_padding().map(|padding| padding.pad_id);
        let named = PAD_NAMES.iter().find_map(|name| tokenizer.token_to_id(name));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        tokenizer.set_encode_special_tokens(true);
        let probe = tokenizer.encode("a", true).map_err(|error| failed(error.to_string()))?;
        let (prefix, suffix) = special_ends(&probe);
        if max_tokens <= prefix.len() + suffix.len() {
            return Err(failed(format!(
                "`max_tokens` is {max_tokens}, which leaves no room for text"
            )));
        }
        let pad_id = declared.or(named).unwrap_or(0);
        Ok(Self { inner: Arc::new(Inner { tokenizer, max_tokens, pad_id, prefix, suffix }) })
    }

    /// The longest input in tokens, special tokens included.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.inner.max_tokens
    }

    /// The id that fills up shorter inputs of a batch.
    #[must_use]
    pub fn pad_id(&self) -> u32 {
        self.inner.pad_id
    }

    /// Tokens of `text`, special tokens included, nothing cut.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn count(&self, text: &str) -> Result<usize, OnnxError> {
        Ok(self.body(text)?.len() + self.specials())
    }

    /// `text` as the model takes it: cut at its end when it is too long.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn fit(&self, text: &str) -> Result<Fitted, OnnxError> {
        Ok(self.frame(self.body(text)?.get_ids()))
    }

    /// Token ids of the model's own vocabulary as the model takes them, after the tokens of the text `prefix`. Special
    /// tokens at the ends of `ids` may be there or not.
    ///
    /// # Errors
    /// When an id is not in the vocabulary, or the tokenizer fails.
    pub fn fit_ids(&self, prefix: &str, ids: &[u32]) -> Result<Fitted, OnnxError> {
        self.check(ids)?;
        let bare = ids.strip_prefix(self.inner.prefix.as_slice()).unwrap_or(ids);
        let bare = bare.strip_suffix(self.inner.suffix.as_slice()).unwrap_or(bare);
        let mut body =
            if prefix.is_empty() { Vec::new() } else { self.body(prefix)?.get_ids().to_vec() };
        body.extend_from_slice(bare);
        Ok(self.frame(&body))
    }

    /// `text` in pieces that fit the model and together cover it; neighbours share about `overlap` tokens. At least one.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn windows(&self, text: &str, overlap: usize) -> Result<Vec<Window>, OnnxError> {
        let tokenizer = &self.inner.tokenizer;
        let encoding = tokenizer
            .encode(text, false)
            .map_err(|error| OnnxError::Tokenize(error.to_string()))?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        let size = self.inner.max_tokens - self.specials();
        // More than half shared would only repeat work.
        let step = size - overlap.min(size / 2);
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + size).min(ids.len());
            let from = if start == 0 { 0 } else { offsets.get(start).map_or(text.len(), |o| o.0) };
            let to = offsets.get(end).map_or(text.len(), |o| o.0);
            windows.push(Window {
                ids: self.frame(ids.get(start..end).unwrap_or_default()).ids,
                span: text.floor_char_boundary(from)..text.ceil_char_boundary(to),
            });
            if end == ids.len() {
                return Ok(windows);
            }
            start += step;
        }
    }

    /// The text that `ids` stand for, special tokens left out.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, OnnxError> {
        self.check(ids)?;
        let decoded = self.inner.tokenizer.decode(ids, true);
        decoded.map_err(|error| OnnxError::Tokenize(error.to_string()))
    }

    fn body(&self, text: &str) -> Result<Encoding, OnnxError> {
        let encoded = self.inner.tokenizer.encode_fast(text, false);
        encoded.map_err(|error| OnnxError::Tokenize(error.to_string()))
    }

    fn specials(&self) -> usize {
        self.inner.prefix.len() + self.inner.suffix.len()
    }

    fn frame(&self, body: &[u32]) -> Fitted {
        let Inner { prefix, suffix, max_tokens, .. } = &*self.inner;
        let room = max_tokens - self.specials();
        let kept = body.get(..room).unwrap_or(body);
        let ids = [prefix.as_slice(), kept, suffix.as_slice()].concat();
        Fitted { ids, total: body.len() + self.specials() }
    }

    fn check(&self, ids: &[u32]) -> Result<(), OnnxError> {
        let unknown = ids.iter().find(|id| self.inner.tokenizer.id_to_token(**id).is_none());
        unknown.map_or(Ok(()), |id| Err(OnnxError::UnknownToken(*id)))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("max_tokens", &self.inner.max_tokens)
            .finish_non_exhaustive()
    }
}

/// The special tokens before and after the text of `probe`.
fn special_ends(probe: &Encoding) -> (Vec<u32>, Vec<u32>) {
    let (ids, special) = (probe.get_ids(), probe.get_special_tokens_mask());
    let before = special.iter().take_while(|&&mask| mask == 1).count();
    let after = special.iter().skip(before).rev().take_while(|&&mask| mask == 1).count();
    let (head, _) = ids.split_at(before);
    let (_, tail) = ids.split_at(ids.len() - after);
    (head.to_vec(), tail.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    const WORDS: [&str; 11] =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sat", "on", "the", "mat", "ü"];

    /// A BERT-like tokenizer with its own truncation and padding, as published files have them.
    fn tokenizer(max_tokens: usize) -> Tokenizer {
        let vocab: BTreeMap<_, _> = WORDS.iter().zip(0..).collect();
        let special = |id: usize| {
            json!({"id": id, "content": WORDS[id], "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        };
        let file = json!({
            "version": "1.0",
            "truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [special(0), special(1), special(2), special(3)],
            "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        });
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file.to_string()).unwrap();
        Tokenizer::load(path.path(), max_tokens).unwrap()
    }

    #[test]
    fn the_files_own_truncation_and_padding_are_ignored() {
        let fitted = tokenizer(16).fit("the cat sat on the mat").unwrap();
        assert_eq!(fitted.ids, [2, 8, 5, 6, 7, 8, 9, 3]);
        assert!(!fitted.is_cut());
    }

    #[test]
    fn a_long_text_is_cut_at_its_end_and_keeps_both_special_tokens() {
        let fitted = tokenizer(4).fit("the cat sat on").unwrap();
        assert_eq!(fitted.ids, [2, 8, 5, 3]);
        assert_eq!(fitted.total, 6);
        assert!(fitted.is_cut());
    }

    #[test]
    fn control_tokens_in_a_text_are_ordinary_text() {
        let fitted = tokenizer(16).fit("cat [SEP] cat").unwrap();
        assert_eq!(fitted.ids.iter().filter(|&&id| id == 3).count(), 1, "{fitted:?}");
    }

    #[test]
    fn windows_cover_the_text_and_overlap() {
        let text = "the ü sat on the mat a ü";
        let windows = tokenizer(6).windows(text, 1).unwrap();
        assert!(windows.iter().all(|w| w.ids.len() <= 6 && w.ids[0] == 2 && w.ids.ends_with(&[3])));
        let spans: Vec<&str> = windows.iter().map(|w| &text[w.span.clone()]).collect();
        assert_eq!(spans, ["the ü sat on ", "on the mat a ", "a ü"]);
    }

    #[test]
    fn a_text_that_fits_and_an_empty_text_are_one_window() {
        assert_eq!(tokenizer(8).windows("the cat", 2).unwrap()[0].span, 0..7);
        assert_eq!(tokenizer(8).windows("", 2).unwrap(), [Window { ids: vec![2, 3], span: 0..0 }]);
    }

    #[test]
    fn token_ids_are_framed_once_and_follow_the_prefix() {
        let tokenizer = tokenizer(8);
        let framed = tokenizer.fit_ids("", &[2, 5, 6, 3]).unwrap();
        assert_eq!(framed, tokenizer.fit_ids("", &[5, 6]).unwrap());
        assert_eq!(framed.ids, [2, 5, 6, 3]);
        assert_eq!(tokenizer.fit_ids("the", &[5]).unwrap().ids, [2, 8, 5, 3]);
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        assert_eq!(tokenizer(8).fit_ids("", &[5, 4711]), Err(OnnxError::UnknownToken(4711)));
        assert_eq!(tokenizer(8).decode(&[99]), Err(OnnxError::UnknownToken(99)));
        assert_eq!(tokenizer(8).decode(&[2, 8, 5, 3]).unwrap(), "the cat");
    }

    #[test]
    fn count_is_exact_and_never_cut() {
        assert_eq!(tokenizer(3).count("the cat sat").unwrap(), 5);
    }
}
