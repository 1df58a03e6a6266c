//! Tests of the windows of a streamed reply.

use super::*;
use crate::pieces::Text;
use api_types::rest::content_filter::{Severity, SeverityResult};

fn windows(size: usize, context: usize, choices: u32) -> Windows {
    filtered(StreamFilter::Buffered, size, context, choices)
}

fn filtered(filter: StreamFilter, size: usize, context: usize, choices: u32) -> Windows {
    let config: crate::config::Config =
        chassis::config::load("edge", crate::DEFAULTS, &Default::default()).unwrap();
    Windows::new(
        &GuardConfig { window_chars: size, context_chars: context, ..config.guard },
        filter,
        choices,
    )
}

fn text(choice: u32, text: &str) -> Piece {
    Piece::Text(Text { choice, text: text.into(), logprobs: Vec::new() })
}

fn end(choice: u32) -> Piece {
    Piece::Finished { choice, reason: FinishReason::Stop }
}

fn clear(windows: &mut Windows, choice: u32) -> Vec<Piece> {
    windows
        .judged(choice, false, &ContentFilterResults::default())
        .into_iter()
        .map(|s| s.piece)
        .collect()
}

#[test]
fn nothing_is_ripe_until_there_are_enough_characters() {
    let mut windows = windows(10, 4, 1);
    assert_eq!(windows.take(text(0, "12345")), None);
    assert_eq!(windows.next_window(), None);
    windows.take(text(0, "67890"));
    assert_eq!(windows.next_window().unwrap().text, "1234567890");
    windows.take(text(0, "abcdefghij"));
    assert_eq!(windows.next_window(), None, "one window of a choice is judged at a time");
    assert_eq!(clear(&mut windows, 0), [text(0, "12345"), text(0, "67890")]);
    assert_eq!(windows.next_window().unwrap().text, "7890abcdefghij");
}

#[test]
fn the_end_of_a_sentence_or_of_a_choice_is_ripe() {
    let mut windows = windows(40, 0, 1);
    windows.take(text(0, "Hi."));
    assert_eq!(windows.next_window(), None, "too short for a window of its own");
    windows.take(text(0, " All is well.\" "));
    assert_eq!(windows.next_window().unwrap().text, "Hi. All is well.\" ");
    clear(&mut windows, 0);
    windows.take(text(0, "bye"));
    windows.take(end(0));
    assert_eq!(windows.next_window().unwrap().text, "bye");
    assert_eq!(clear(&mut windows, 0), [text(0, "bye"), end(0)]);
}

#[test]
fn a_blocked_window_ends_its_choice_and_no_character_of_it_leaves() {
    let mut windows = windows(4, 0, 2);
    windows.take(text(0, "evil"));
    windows.take(text(1, "good"));
    let window = windows.next_window().unwrap();
    let high = SeverityResult { filtered: true, severity: Severity::High };
    let found = ContentFilterResults { hate: Some(high), ..Default::default() };
    let out = windows.judged(window.choice, true, &found);
    let expected = Piece::Finished { choice: 0, reason: FinishReason::ContentFilter };
    assert_eq!(out, [Screened { piece: expected, found: Some(found) }]);
    windows.take(text(0, "more"));
    windows.take(end(0));
    assert_eq!(windows.next_window().unwrap().choice, 1);
    assert_eq!(clear(&mut windows, 1), [text(1, "good")]);
    assert!(windows.textless().is_empty() && windows.next_window().is_none());
}

#[test]
fn usage_waits_for_the_choices_and_is_missed_only_when_all_are_done() {
    let mut windows = windows(4, 0, 1);
    assert!(!windows.only_usage_is_missing());
    windows.take(text(0, "evil"));
    windows.next_window().unwrap();
    windows.judged(0, true, &ContentFilterResults::default());
    assert!(windows.only_usage_is_missing());
    let usage = Usage { prompt: 1, ..Usage::default() };
    assert_eq!(windows.take(Piece::Usage(usage)), None);
    assert!(!windows.only_usage_is_missing());
    assert_eq!(windows.usage(), Some(usage));
}

#[test]
fn an_end_without_text_leaves_without_a_verdict() {
    let mut windows = windows(4, 0, 1);
    windows.take(text(0, "1234"));
    windows.take(end(0));
    windows.next_window().unwrap();
    assert!(windows.textless().is_empty(), "the text before it is still judged");
    clear(&mut windows, 0);
    let mut other = super::tests::windows(4, 0, 1);
    other.take(end(0));
    assert_eq!(other.textless(), [end(0)]);
}

#[test]
fn there_is_room_until_a_choice_is_far_ahead() {
    let mut windows = windows(4, 0, 128);
    for choice in 0..128 {
        windows.take(text(choice, "abc"));
    }
    assert!(windows.has_room(), "many choices that are not ripe must not stop the stream");
    windows.take(text(0, &"a".repeat(32)));
    assert!(!windows.has_room());
}

#[test]
fn the_tail_counts_characters() {
    assert_eq!(tail("naïveté", 3), "eté");
    assert_eq!(tail("ab", 5), "ab");
    assert_eq!(tail("ab", 0), "");
}

/// What leaves of `text`, cut into pieces at `cuts`, when windows with `word` are blocked; judged as soon as something is ripe, or
/// only when no more pieces are taken.
fn leaving(filter: StreamFilter, text: &str, word: &str, cuts: &[usize], eager: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (chars.len() + 1)).collect();
    bounds.extend([0, chars.len()]);
    bounds.sort_unstable();
    let (size, context) = (7, word.chars().count());
    let mut windows = filtered(filter, size, context, 1);
    let mut left = String::new();
    let mut leave = |screened: Screened| {
        if let Piece::Text(text) = screened.piece {
            left.push_str(&text.text);
        }
    };
    let mut pieces: Vec<Piece> = bounds
        .windows(2)
        .map(|pair| self::text(0, &chars[pair[0]..pair[1]].iter().collect::<String>()))
        .collect();
    pieces.push(end(0));
    for piece in pieces {
        windows.take(piece).into_iter().for_each(|piece| leave(Screened::unseen(piece)));
        while (eager || !windows.has_room())
            && let Some(window) = windows.next_window()
        {
            let blocked = window.text.contains(word);
            let found = ContentFilterResults::default();
            windows.judged(0, blocked, &found).into_iter().for_each(&mut leave);
        }
    }
    while let Some(window) = windows.next_window() {
        let blocked = window.text.contains(word);
        windows
            .judged(0, blocked, &ContentFilterResults::default())
            .into_iter()
            .for_each(&mut leave);
    }
    left
}

proptest::proptest! {
    #[test]
    fn however_a_reply_is_split_no_whole_blocked_word_leaves_and_a_clean_one_leaves_whole(
        before in "[a-z .ü]{0,60}",
        after in "[a-z .ü]{0,60}",
        cuts in proptest::collection::vec(0_usize..200, 0..40),
        eager: bool,
    ) {
        let clean = format!("{before}{after}");
        let left = leaving(StreamFilter::Buffered, &clean, "EVIL", &cuts, eager);
        proptest::prop_assert_eq!(left, clean.clone());
        let left = leaving(StreamFilter::Buffered, &format!("{before}EVIL{after}"), "EVIL", &cuts, eager);
        proptest::prop_assert!(!left.contains("EVIL"), "{}", left);
        proptest::prop_assert!(before.starts_with(&left) || left.strip_prefix(&before).is_some_and(|rest| "EVIL".starts_with(rest)));
        // An asynchronous filter takes nothing away from what it clears.
        let whole = leaving(StreamFilter::Asynchronous, &clean, "EVIL", &cuts, eager);
        proptest::prop_assert_eq!(whole, clean);
    }
}

#[test]
fn behind_the_stream_text_leaves_at_once_and_the_end_waits_for_the_verdict() {
    let mut windows = filtered(StreamFilter::Asynchronous, 4, 2, 1).after(100);
    assert_eq!(windows.take(text(0, "abcd")), Some(text(0, "abcd")));
    let window = windows.next_window().unwrap();
    assert_eq!((window.text.as_str(), window.begins), ("abcd", 0));
    assert_eq!(windows.take(text(0, "ef")), Some(text(0, "ef")));
    assert_eq!(windows.take(end(0)), None);
    let vetted = |start_offset, end_offset| {
        let offsets = ContentFilterOffsets { check_offset: end_offset, start_offset, end_offset };
        Piece::Vetted { choice: 0, offsets }
    };
    assert_eq!(clear(&mut windows, 0), [vetted(100, 104)]);
    assert!(windows.textless().is_empty(), "two characters are still to be judged");
    let window = windows.next_window().unwrap();
    assert_eq!((window.text.as_str(), window.begins), ("cdef", 2));
    assert_eq!(clear(&mut windows, 0), [vetted(104, 106), end(0)]);
    assert!(windows.only_usage_is_missing());
}

#[test]
fn behind_the_stream_a_blocked_window_is_annotated_and_ends_its_choice() {
    let mut windows = filtered(StreamFilter::Asynchronous, 4, 0, 1);
    windows.take(text(0, "evil"));
    windows.next_window().unwrap();
    let out = windows.judged(0, true, &ContentFilterResults::default());
    assert!(matches!(out[0].piece, Piece::Vetted { .. }));
    let cut = Piece::Finished { choice: 0, reason: FinishReason::ContentFilter };
    assert_eq!(out[1].piece, cut);
    assert_eq!(windows.take(text(0, "more")), None);
    assert_eq!(windows.take(end(0)), None);
}

#[test]
fn the_filter_is_never_further_behind_than_the_contract_says() {
    let mut windows = filtered(StreamFilter::Asynchronous, 200, 200, 1);
    windows.take(text(0, &"a".repeat(900)));
    windows.next_window().unwrap();
    assert!(windows.has_room());
    windows.take(text(0, &"a".repeat(100)));
    assert!(!windows.has_room());
    clear(&mut windows, 0);
    assert!(windows.has_room());
    let mut large = filtered(StreamFilter::Asynchronous, 5000, 0, 1);
    large.take(text(0, &"a".repeat(4000)));
    assert!(large.has_room(), "a window must be able to fill");
}
