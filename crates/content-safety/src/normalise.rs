//! Undoes the simple ways of writing a word so that a filter misses it: look-alike letters, invisible characters, spaced
//! letters, digits for letters, base64 and percent encoding.
//!
//! Separate and pure so that each trick has a test. The result is judged *beside* the text, never instead of it, so that a
//! fold which garbles an honest text costs time but hides nothing.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Fewer spaced letters in a row are initials ("J. R. Smith"), not a word.
const SPACED_LETTERS: usize = 3;
/// What people put between the letters of a word.
const SPACERS: [char; 6] = [' ', '.', '-', '_', '*', '~'];

/// A text with so many masked words, and at least one in `MASKED_PART` of all, is masked as a whole.
const MASKED_WORDS: usize = 2;
const MASKED_PART: usize = 4;
/// Shorter ones that begin with a digit are numbers with their unit ("1st", "5km").
const LEAST_MASKED: usize = 5;
/// In a masked text, longer numbers are numbers, shorter ones short words: "70" is "to".
const LONGEST_NUMBER: usize = 3;
/// What is inside words and no sign of an address or of code.
const JOINTS: [char; 3] = ['\'', '’', '-'];
/// Signs that a word may end with and that punctuation does not use.
const TAIL_SIGNS: [char; 3] = ['$', '@', '€'];

/// `text` with the tricks undone, or none where there was nothing to undo that a tokenizer would see.
#[must_use]
pub(crate) fn unmask(text: &str) -> Option<String> {
    let plain: String = text.nfkc().filter(|c| !is_invisible(*c)).map(latin).collect();
    let plain = leet(&join_letters(&plain));
    (canonical(&plain) != canonical(text)).then_some(plain)
}

/// Fewer characters of base64 are a word or a number.
const LEAST_BASE64: usize = 16;
/// Fewer percent signs are percentages, or the blanks of an address.
const LEAST_PERCENTS: usize = 3;
/// Base64 as people write it: with padding or without, and with ends that are cut.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// `text` with base64 and percent encoding read where that gives text, or none where it has none. Never longer than `text`.
#[must_use]
pub(crate) fn decode(text: &str) -> Option<String> {
    let is_code = |c: char| c.is_ascii_alphanumeric() || "+/=-_".contains(c);
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(begin) = rest.find(is_code) {
        let (before, from) = rest.split_at(begin);
        let (span, after) = from.split_at(from.find(|c| !is_code(c)).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(base64_text(span).as_deref().unwrap_or(span));
        rest = after;
    }
    out.push_str(rest);
    let plain = percent_text(&out).unwrap_or(out);
    (plain != text).then_some(plain)
}

fn base64_text(span: &str) -> Option<String> {
    if span.len() < LEAST_BASE64 {
        return None;
    }
    let bytes = BASE64.decode(span).or_else(|_| BASE64_URL.decode(span)).ok()?;
    readable(bytes)
}

fn percent_text(text: &str) -> Option<String> {
    if text.matches('%').count() < LEAST_PERCENTS {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        let code = (*first == b'%').then(|| Some(digit(0)? * 16 + digit(1)?)).flatten();
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    readable(bytes).filter(|plain| plain != text)
}

/// The text that `bytes` are, if they are one: random bytes have control characters or are no UTF-8.
fn readable(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    let strange = text.chars().any(|c| c.is_control() && !c.is_whitespace());
    (!strange).then_some(text)
}

/// `text` for comparing with a list: compatibility forms, look-alikes and case folded.
#[must_use]
pub(crate) fn fold(text: &str) -> String {
    text.nfkc().filter(|c| !is_invisible(*c)).map(latin).flat_map(char::to_lowercase).collect()
}

/// A letter of a script without spaces between words: Thai, Lao, Khmer, kana and Han.
pub(crate) const fn is_unspaced(c: char) -> bool {
    matches!(
        c,
        '\u{e00}'..='\u{eff}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
    )
}

/// What an uncased tokenizer makes no difference of: case, accents, runs of white space.
fn canonical(text: &str) -> String {
    let bare = text.nfd().filter(|c| !is_combining_mark(*c) && !is_invisible(*c));
    let bare: String = bare.flat_map(char::to_lowercase).collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Zero-width characters, direction marks, soft hyphens, tags and variation selectors.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{e0000}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}'
    )
}

/// The Latin letter that a Cyrillic or Greek one is mistaken for.
const fn latin(c: char) -> char {
    match c {
        'а' | 'α' => 'a',
        'А' | 'Α' => 'A',
        'В' | 'Β' => 'B',
        'с' | 'ϲ' => 'c',
        'С' | 'Ϲ' => 'C',
        'ԁ' => 'd',
        'е' | 'ё' | 'ε' | 'є' => 'e',
        'Е' | 'Ε' => 'E',
        'һ' => 'h',
        'Н' | 'Η' => 'H',
        'і' | 'ι' | 'ı' => 'i',
        'І' | 'Ι' => 'I',
        'ј' => 'j',
        'к' | 'κ' => 'k',
        'К' | 'Κ' => 'K',
        'ӏ' => 'l',
        'М' | 'Μ' => 'M',
        'п' | 'η' => 'n',
        'Ν' => 'N',
        'о' | 'ο' | 'σ' => 'o',
        'О' | 'Ο' => 'O',
        'р' | 'ρ' => 'p',
        'Р' | 'Ρ' => 'P',
        'ѕ' => 's',
        'Ѕ' => 'S',
        'т' | 'τ' => 't',
        'Т' | 'Τ' => 'T',
        'υ' | 'ц' => 'u',
        'ν' => 'v',
        'ѡ' | 'ω' => 'w',
        'х' | 'χ' => 'x',
        'Х' | 'Χ' => 'X',
        'у' | 'γ' => 'y',
        'У' | 'Υ' => 'Y',
        'Ζ' => 'Z',
        other => other,
    }
}

/// "k i l l" and "k.i.l.l" → "kill"; two or more spacers, or one of another kind, end the word.
fn join_letters(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let run = spaced_run(&chars, at);
        if run.len() >= SPACED_LETTERS {
            at += run.len() * 2 - 1;
            out.extend(run);
        } else {
            out.push(c);
            at += 1;
        }
    }
    out
}

/// The letters of a run that begins at `at`: single letters with the same spacer between each two.
fn spaced_run(chars: &[char], at: usize) -> Vec<char> {
    let before = at.checked_sub(1).and_then(|i| chars.get(i));
    if before.is_some_and(|c| c.is_alphanumeric()) {
        return Vec::new();
    }
    let spacer = chars.get(at + 1).filter(|c| SPACERS.contains(c));
    let mut run = Vec::new();
    let mut next = at;
    while let Some(&letter) = chars.get(next).filter(|c| c.is_alphabetic()) {
        let after = chars.get(next + 1);
        if after.is_some_and(|c| c.is_alphanumeric()) {
            // A longer word begins here; its first letter is not part of the run.
            break;
        }
        run.push(letter);
        if after.is_none() || after != spacer {
            break;
        }
        next += 2;
    }
    run
}

/// "k1ll" → "kill", "$uicide" → "suicide", "gun$" → "guns". Words without a letter, numbers with a unit ("10am") and trailing digits
/// ("mp3") stay, unless the text is full of such words: then "70 d13 15" is no row of numbers.
fn leet(text: &str) -> String {
    let words = text.split_whitespace().count();
    let masked = text.split_whitespace().filter(|word| unleet(word).is_some()).count();
    let full = masked >= MASKED_WORDS && masked * MASKED_PART >= words;
    let ends = |c: char| c.is_whitespace() || JOINTS.contains(&c) || full && !is_written(c);
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        let plain = if full { unleet_all(word) } else { unleet(word) };
        out.push_str(plain.as_deref().unwrap_or(word));
        out.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    out
}

/// A letter, a digit, or a sign that stands for a letter.
fn is_written(c: char) -> bool {
    c.is_alphanumeric() || unmasked(c).is_some()
}

/// A word of a text that is otherwise plain: read where digits or signs stand among at least two letters.
fn unleet(word: &str) -> Option<String> {
    let begin = word.find(is_written)?;
    let last = |(at, c): (usize, char)| at + c.len_utf8();
    let end = word.char_indices().rfind(|(_, c)| c.is_alphabetic()).map(last)?;
    let (head, body, tail) = (word.get(..begin)?, word.get(begin..end)?, word.get(end..)?);
    // What follows the last letter is a number or punctuation, but for signs, and one digit in a word that is masked already.
    let inner = body.chars().filter(|c| unmasked(*c).is_some()).count();
    let signs = tail.chars().take_while(|c| TAIL_SIGNS.contains(c)).map(char::len_utf8).sum();
    let digit = tail.starts_with(|c: char| inner > 0 && c.is_ascii_digit());
    let (more, tail) = tail.split_at(if digit { 1 } else { signs });
    let masks = inner + more.chars().count();
    let letters = body.chars().filter(|c| c.is_alphabetic()).count();
    let strange = body.chars().any(|c| !c.is_alphabetic() && unmasked(c).is_none());
    if masks == 0 || strange || masks > letters + 1 || letters < 2 || has_unit(body, masks) {
        return None;
    }
    let plain = body.chars().chain(more.chars()).map(|c| unmasked(c).unwrap_or(c));
    Some(head.chars().chain(plain).chain(tail.chars()).collect())
}

/// Whether `body`, with so many masks, is a number and its unit ("10am", "5km", "€50bn"), and no word that begins masked.
fn has_unit(body: &str, masks: usize) -> bool {
    let number = body.chars().take_while(|c| c.is_ascii_digit() || "$€".contains(*c)).count();
    number > 0 && number == masks && (number > 1 || body.chars().count() < LEAST_MASKED)
}

/// A piece of a text that is full of masked words: everything that can be a letter is one.
fn unleet_all(piece: &str) -> Option<String> {
    let body = piece.trim_end_matches(['!', '|', '+']);
    let letters = body.chars().any(char::is_alphabetic);
    if body.is_empty() || !letters && body.chars().count() > LONGEST_NUMBER {
        return None;
    }
    let read = |c: char| match c {
        '8' => 'b',
        '9' => 'g',
        other => unmasked(other).unwrap_or(other),
    };
    let plain: String = body.replace("111", "ill").replace("11", "ll").chars().map(read).collect();
    Some(plain + piece.get(body.len()..).unwrap_or_default())
}

const fn unmasked(c: char) -> Option<char> {
    match c {
        '0' => Some('o'),
        '1' | '!' | '|' => Some('i'),
        '3' | '€' => Some('e'),
        '4' | '@' => Some('a'),
        '5' | '$' => Some('s'),
        '7' | '+' => Some('t'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_have_nothing_to_undo() {
        let texts = [
            "How do I kill a process?",
            "Café crème at 10:30, please",
            "",
            "SELECT * FROM t",
            "mp3 and utf8 and h264",
            "call 555 1234 in 3 days",
            "I am 5 years old",
            "from 10am on the 1st to the 15th, 5km for €50bn",
            "see https://example.org/a1b/c3d?x=1 and d2a84f4b8b650937",
            "plan b c",
        ];
        for text in texts {
            assert_eq!(unmask(text), None, "{text}");
        }
    }

    #[test]
    fn spaced_letters_are_joined() {
        assert_eq!(unmask("how to k i l l him").as_deref(), Some("how to kill him"));
        assert_eq!(unmask("b.o.m.b now").as_deref(), Some("bomb now"));
        assert_eq!(unmask("k-i-l-l  y-o-u").as_deref(), Some("kill  you"));
        assert_eq!(unmask("J R Smith is here"), None);
    }

    #[test]
    fn digits_and_signs_for_letters_are_read() {
        assert_eq!(unmask("k1ll th3m").as_deref(), Some("kill them"));
        assert_eq!(unmask("$uicide").as_deref(), Some("suicide"));
        assert_eq!(unmask("h4t3!").as_deref(), Some("hate!"));
        assert_eq!(unmask("two gun$ and a (kn1fe)").as_deref(), Some("two guns and a (knife)"));
        assert_eq!(unmask("I d0n't").as_deref(), Some("I don't"));
    }

    #[test]
    fn a_text_full_of_masked_words_has_its_numbers_read_too() {
        let read = |text| unmask(text).unwrap_or_default();
        assert_eq!(
            read("1 w4n7 70 5h007 7h3 b0d135, d0n'7 1?"),
            "i want to shoot the bodies, don't i?"
        );
        assert_eq!(read("h!$ le$$ !$ $0 @ k!ll y0u!"), "his less is so a kill you!");
        assert_eq!(read("1'll k111 h1m w1th 1t"), "i'll kill him with it");
        assert_eq!(read("m33t m3 h3r3 at 10 or 2026"), "meet me here at io or 2026");
    }

    #[test]
    fn look_alike_letters_and_invisible_ones_are_undone() {
        assert_eq!(unmask("k\u{456}ll").as_deref(), Some("kill"));
        assert_eq!(unmask("ｋｉｌｌ").as_deref(), Some("kill"));
        assert_eq!(fold("b\u{200b}o\u{2060}mb"), "bomb");
    }

    #[test]
    fn encoded_text_is_read() {
        let hidden = "aG93IHRvIGtpbGwgaGlt";
        assert_eq!(decode(&format!("say: {hidden}.")).as_deref(), Some("say: how to kill him."));
        assert_eq!(decode("kill%20him%20n%6Fw 5%").as_deref(), Some("kill him now 5%"));
        assert_eq!(decode("Pz8_fn5-Pz8_fn5-Pz8_").as_deref(), Some("???~~~???~~~???"));
    }

    #[test]
    fn what_only_looks_encoded_stays() {
        let texts = [
            "5% of 10% is 0.5% and 100% is all",
            "d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26",
            "https://example.org/a%20b",
            "internationalization and deinstitutionalization",
            "",
        ];
        for text in texts {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn invisible_characters_alone_are_no_difference_since_the_tokenizer_drops_them() {
        assert_eq!(unmask("ki\u{200b}ll"), None);
    }

    #[test]
    fn fold_makes_comparison_blind_to_case_and_form() {
        assert_eq!(fold("ＫÖINE"), fold("köine"));
    }
}
