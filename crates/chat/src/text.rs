//! From the bytes of tokens to text that may be shown: whole characters only, and nothing of a stop string.
//!
//! Separate because both hold text back across token borders and must be right for every way of cutting it. Pure.

/// Bytes in, whole characters out. A character that is cut by a token border waits for its rest.
#[derive(Debug, Default)]
pub(crate) struct Utf8Decoder {
    /// The beginning of a character, at most 3 bytes.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// The characters that `bytes` completes; bytes that are no UTF-8 become U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(bad) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(bad..).unwrap_or_default();
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }
}

/// What may be shown of the text so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The next piece.
    pub(crate) text: String,
    /// A stop string was met: nothing follows.
    pub(crate) stopped: bool,
}

/// Finds the first stop string; holds back text that may be the beginning of one.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// Empty stop strings are ignored: they would stop everything.
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(),
            held: String::new(),
        }
    }

    /// Takes the next text. After `stopped` it must not be called again.
    pub(crate) fn push(&mut self, text: &str) -> Shown {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Shown { text: std::mem::take(&mut self.held), stopped: true };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Shown { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, when the text ends without a stop string.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that begins `stop`.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&n| text.as_bytes().get(text.len() - n..) == stop.as_bytes().get(..n))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<String> {
        let mut decoder = Utf8Decoder::default();
        pieces.iter().map(|p| decoder.push(p)).collect()
    }

    #[test]
    fn an_emoji_cut_anywhere_comes_out_whole() {
        let text = "a🦀é漢b";
        for cut in 0..=text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            let pieces = decode(&[left, right]);
            assert_eq!(pieces.concat(), text);
            assert!(!pieces.concat().contains('\u{FFFD}'));
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(decode(&bytes).concat(), text);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_do_not_block_the_rest() {
        assert_eq!(decode(&[b"a\xFFb", b"\xF0\x9F", b"c"]).concat(), "a\u{FFFD}b\u{FFFD}c");
    }

    #[test]
    fn a_character_that_never_completes_is_not_shown() {
        assert_eq!(decode(&["é".as_bytes(), &[0xF0, 0x9F]]).concat(), "é");
    }

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            let shown = matcher.push(piece);
            out.push_str(&shown.text);
            if shown.stopped {
                return (out, true);
            }
        }
        out.push_str(&matcher.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_is_found_across_every_cut() {
        let text = "one two END three";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(run(&["END"], &pieces), ("one two ".to_owned(), true), "{pieces:?}");
            }
        }
    }

    #[test]
    fn a_false_beginning_of_a_stop_string_is_shown_in_the_end() {
        assert_eq!(
            run(&["\n\nUser:"], &["hi\n", "\nUse", " it"]),
            ("hi\n\nUse it".to_owned(), false)
        );
        assert_eq!(run(&["END"], &["the EN"]), ("the EN".to_owned(), false));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_wins() {
        assert_eq!(run(&["three", "two"], &["one two three"]), ("one ".to_owned(), true));
        assert_eq!(run(&["", "b"], &["aab"]), ("aa".to_owned(), true));
    }

    #[test]
    fn text_is_never_held_longer_than_needed() {
        let mut matcher = StopMatcher::new(&["ab".to_owned()]);
        assert_eq!(matcher.push("xa"), Shown { text: "x".into(), stopped: false });
        assert_eq!(matcher.push("c"), Shown { text: "ac".into(), stopped: false });
        assert_eq!(matcher.push("é"), Shown { text: "é".into(), stopped: false });
    }
}
