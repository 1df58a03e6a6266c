//! Writes a `tokenizer.json` of the unigram kind from a list of pieces and scores.
//!
//! Separate from the file that the pieces come in. The normaliser is SentencePiece's `nmt_nfkc` in the words of the
//! tokenizers library: NFKC, white space to blanks, runs of blanks to one.
//! Fields are written in the order of these structs, so that the bytes do not depend on anything else.

use serde::Serialize;

use super::ConvertError;

/// What SentencePiece writes for a blank.
const BLANK: &str = "\u{2581}";

/// Pieces with their scores, and which of them are special.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) pieces: Vec<(String, f64)>,
    pub(super) special: Special,
}

/// Numbers of special pieces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Special {
    pub(super) bos: usize,
    pub(super) eos: usize,
    pub(super) pad: usize,
    pub(super) unk: usize,
}

#[derive(Serialize)]
struct Tokenizer<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<Added<'a>>,
    normalizer: Normalizers,
    pre_tokenizer: Metaspace,
    post_processor: Template<'a>,
    decoder: Metaspace,
    model: Unigram<'a>,
}

#[derive(Serialize)]
struct Added<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Normalizers {
    r#type: &'static str,
    normalizers: [Normalizer; 3],
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Normalizer {
    #[serde(rename = "NFKC")]
    Nfkc,
    Replace {
        pattern: Pattern,
        content: &'static str,
    },
}

#[derive(Serialize)]
struct Pattern {
    #[serde(rename = "Regex")]
    regex: &'static str,
}

#[derive(Serialize)]
struct Metaspace {
    r#type: &'static str,
    replacement: &'static str,
    prepend_scheme: &'static str,
    split: bool,
}

const METASPACE: Metaspace =
    Metaspace { r#type: "Metaspace", replacement: BLANK, prepend_scheme: "always", split: true };

#[derive(Serialize)]
struct Template<'a> {
    r#type: &'static str,
    single: [Part<'a>; 3],
    pair: [Part<'a>; 2],
    special_tokens: SpecialTokens<'a>,
}

#[derive(Serialize)]
enum Part<'a> {
    SpecialToken { id: &'a str, type_id: u8 },
    Sequence { id: &'static str, type_id: u8 },
}

/// A map of two entries, in this order.
struct SpecialTokens<'a>([SpecialToken<'a>; 2]);

impl Serialize for SpecialTokens<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|token| (token.id, token)))
    }
}

#[derive(Serialize)]
struct SpecialToken<'a> {
    id: &'a str,
    ids: [usize; 1],
    tokens: [&'a str; 1],
}

#[derive(Serialize)]
struct Unigram<'a> {
    r#type: &'static str,
    unk_id: usize,
    vocab: &'a [(String, f64)],
    byte_fallback: bool,
}

/// The file's bytes.
pub(super) fn tokenizer(vocabulary: &Vocabulary) -> Result<Vec<u8>, ConvertError> {
    let Special { bos, eos, pad, unk } = vocabulary.special;
    let piece = |number: usize| {
        let found = vocabulary.pieces.get(number).map(|(text, _)| text.as_str());
        found.ok_or_else(|| ConvertError::new(format!("the vocabulary has no piece {number}")))
    };
    let mut added_tokens = vec![];
    for id in [bos, pad, eos, unk] {
        let content = piece(id)?;
        added_tokens.push(Added {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        });
    }
    let (begin, end) = (piece(bos)?, piece(eos)?);
    let token = |id, number| SpecialToken { id, ids: [number], tokens: [id] };
    let replace = |regex| Normalizer::Replace { pattern: Pattern { regex }, content: " " };
    let tokenizer = Tokenizer {
        version: "1.0",
        truncation: None,
        padding: None,
        added_tokens,
        normalizer: Normalizers {
            r#type: "Sequence",
            normalizers: [Normalizer::Nfkc, replace("[\\n\\t\\r]"), replace(" {2,}")],
        },
        pre_tokenizer: METASPACE,
        post_processor: Template {
            r#type: "TemplateProcessing",
            single: [
                Part::SpecialToken { id: begin, type_id: 0 },
                Part::Sequence { id: "A", type_id: 0 },
                Part::SpecialToken { id: end, type_id: 0 },
            ],
            pair: [Part::Sequence { id: "A", type_id: 0 }, Part::Sequence { id: "B", type_id: 0 }],
            special_tokens: SpecialTokens([token(begin, bos), token(end, eos)]),
        },
        decoder: METASPACE,
        model: Unigram {
            r#type: "Unigram",
            unk_id: unk,
            vocab: &vocabulary.pieces,
            byte_fallback: false,
        },
    };
    serde_json::to_vec(&tokenizer)
        .map_err(|e| ConvertError::new(format!("cannot write the tokenizer: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_pieces_frame_a_text_and_scores_are_kept() {
        let pieces =
            [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u{2581}a", -3.5)];
        let pieces = pieces.map(|(piece, score)| (piece.to_owned(), score)).to_vec();
        let special = Special { bos: 0, pad: 1, eos: 2, unk: 3 };
        let file = tokenizer(&Vocabulary { pieces: pieces.clone(), special }).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(json["model"]["vocab"][4], serde_json::json!(["\u{2581}a", -3.5]));
        assert_eq!(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
        assert_eq!(json["post_processor"]["special_tokens"]["</s>"]["ids"][0], 2);
        assert_eq!(json["added_tokens"][1]["content"], "<pad>");
        let missing = Special { unk: 9, ..special };
        assert!(
            tokenizer(&Vocabulary { pieces, special: missing })
                .unwrap_err()
                .to_string()
                .contains('9')
        );
    }
}
