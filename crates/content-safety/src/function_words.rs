//! Texts that say nothing yet: the first word or two of an answer, as a stream or a small `max_tokens` cuts it.
//!
//! Separate from the models, which were trained on sentences and guess at fragments: "They" alone is mostly followed by something
//! about people. Only words that name nothing and nobody are in the list, and only few of them together are passed over.

/// Most words of such a text: more of them can be a sentence.
const MOST_WORDS: usize = 3;

/// English words that say nothing without others, in order.
const FUNCTION_WORDS: [&str; 76] = [
    "a", "about", "after", "all", "also", "although", "an", "and", "are", "as", "at", "because",
    "been", "before", "both", "but", "by", "can", "could", "did", "does", "each", "every", "for",
    "from", "had", "has", "have", "he", "here", "how", "however", "i", "if", "in", "into", "is",
    "it", "its", "may", "might", "my", "no", "not", "of", "on", "once", "or", "our", "she",
    "should", "since", "some", "such", "than", "that", "the", "their", "then", "there", "these",
    "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which", "while",
    "will", "with", "yes",
];

/// Whether `text` is nothing but a few such words.
pub(crate) fn says_nothing(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let known = |word: &str| {
        let word = word.trim_matches([',', '.', ':', '"', '\'']).to_ascii_lowercase();
        FUNCTION_WORDS.binary_search(&word.as_str()).is_ok()
    };
    words.by_ref().take(MOST_WORDS).all(known) && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_says_nothing_and_a_word_with_a_meaning_says_something() {
        assert!(FUNCTION_WORDS.is_sorted());
        for nothing in ["The", " There are", "They", "\"We", "It is the", "Yes,", ""] {
            assert!(says_nothing(nothing), "{nothing}");
        }
        for something in ["The bomb", "kill", "They are all the", "th3", "I hate", "ты"] {
            assert!(!says_nothing(something), "{something}");
        }
    }
}
