//! A conversation as one text, so that what is said over several turns is judged as if it were said in one.
//!
//! Separate and pure. Stretches are cut from the beginning, so those of earlier turns are the same with every turn, and what was
//! found in them is known: a turn costs a text or two more than itself.

use crate::screen::{Segment, Source};

/// Characters of a stretch: about what the encoder reads at once.
const STRETCH: usize = 600;
/// Characters that neighbouring stretches share.
const OVERLAP: usize = 200;
/// Characters of an answer, from its end: what the next turn speaks of. More would drive apart what the user says.
const ANSWER: usize = 200;

/// The conversation in stretches, but for those within one turn, which is judged by itself. System text and documents have no
/// part in it. None of less than two turns.
pub(crate) fn stretches(segments: &[Segment]) -> Vec<String> {
    let turns: Vec<&str> = segments.iter().filter_map(turn).collect();
    let whole = turns.join("\n");
    let marks: Vec<usize> = whole.char_indices().map(|(at, _)| at).chain([whole.len()]).collect();
    let length = marks.len() - 1;
    let after = turns.iter().scan(0, |at, turn| {
        *at += turn.chars().count() + 1;
        Some(*at)
    });
    // Where turns begin, in characters, but for the first.
    let begins_of_turns: Vec<usize> = after.take_while(|at| *at <= length).collect();
    let begins = (0..length).step_by(STRETCH - OVERLAP);
    let spans = begins.map(|begin| (begin, length.min(begin + STRETCH)));
    // What is left after the last whole step lies in the stretch before it already.
    let spans = spans.filter(|(begin, _)| *begin == 0 || begin + OVERLAP < length);
    let joins = |&(begin, end): &(usize, usize)| {
        let next = begins_of_turns.partition_point(|at| *at <= begin + 1);
        begins_of_turns.get(next).is_some_and(|at| *at < end)
    };
    let text = |(begin, end): (usize, usize)| {
        let bytes = marks.get(begin).copied()?..marks.get(end).copied()?;
        whole.get(bytes).map(|text| words(text, begin == 0, end == length).to_owned())
    };
    spans.filter(joins).filter_map(text).collect()
}

fn turn(segment: &Segment) -> Option<&str> {
    let text = segment.text.trim();
    match segment.source {
        Source::User => Some(text),
        Source::Assistant => {
            let begin = text.char_indices().rev().nth(ANSWER - 1).map_or(0, |(at, _)| at);
            Some(words(text.get(begin..).unwrap_or_default(), begin == 0, true))
        }
        Source::System | Source::Document => None,
    }
}

/// `text` without the parts of words at its edges, where it does not begin or end with the whole.
fn words(text: &str, first: bool, last: bool) -> &str {
    let begin = if first { Some(0) } else { text.find(char::is_whitespace) };
    let end = if last { Some(text.len()) } else { text.rfind(char::is_whitespace) };
    let inner = begin.zip(end).and_then(|(begin, end)| text.get(begin..end));
    inner.unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(segments: &[(Source, &str)]) -> Vec<String> {
        let segment =
            |(source, text): &(Source, &str)| Segment { source: *source, text: (*text).to_owned() };
        stretches(&segments.iter().map(segment).collect::<Vec<_>>())
    }

    #[test]
    fn turns_are_one_text_and_instructions_and_documents_are_not_in_it() {
        let turns = [
            (Source::System, "be kind"),
            (Source::User, "who lives next door?"),
            (Source::Document, "a register"),
            (Source::Assistant, "Mr Smith."),
            (Source::User, "and when?"),
        ];
        assert_eq!(of(&turns), ["who lives next door?\nMr Smith.\nand when?"]);
        assert!(of(&turns[..3]).is_empty(), "one turn is judged by itself");
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn of_a_long_answer_its_end_counts() {
        let answer = format!("{} the end", "word ".repeat(100));
        let found =
            of(&[(Source::User, "one"), (Source::Assistant, &answer), (Source::User, "two")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("one\nword") && found[0].ends_with("the end\ntwo"));
        assert!(found[0].chars().count() <= ANSWER + "one\n\ntwo".len());
    }

    #[test]
    fn every_two_neighbours_meet_in_a_stretch_and_what_lies_within_a_turn_is_left_out() {
        let long = "näh ".repeat(500);
        let last = (Source::User, "the last");
        let found = of(&[(Source::User, "first"), (Source::User, &long), last]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("first\nnäh"), "{found:?}");
        assert!(found[1].ends_with("näh\nthe last"), "{found:?}");
        assert!(found.iter().all(|text| text.chars().count() <= STRETCH));
        assert!(found.iter().all(|text| text.split_whitespace().all(|w| w != "nä" && w != "äh")));
    }

    #[test]
    fn stretches_of_earlier_turns_come_again() {
        let turns: Vec<String> =
            (0..60).map(|n| format!("this is turn number {n} of many")).collect();
        let turns: Vec<_> = turns.iter().map(|turn| (Source::User, turn.as_str())).collect();
        let (before, after) = (of(&turns[..50]), of(&turns));
        let fresh = after.iter().filter(|text| !before.contains(text)).count();
        assert!(fresh <= 2 && before.len() > 2, "{fresh} of {}", after.len());
        for (one, next) in turns.iter().zip(&turns[1..]) {
            let pair = format!("{}\n{}", one.1, next.1);
            assert!(after.iter().any(|text| text.contains(&pair)), "{pair}");
        }
    }
}
