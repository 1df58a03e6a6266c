//! Tests of the windows of a streamed reply.

use super::*;
use crate::pieces::Text;
use api_types::rest::content_filter::{Severity, SeverityResult};

fn windows(size: usize, context: usize, choices: u32) -> Windows {
    let config: crate::config::Config =
        chassis::config::load("edge", crate::DEFAULTS, &Default::default()).unwrap();
    Windows::new(
        &GuardConfig { window_chars: size, context_chars: context, ..config.guard },
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
        .judged(choice, false, ContentFilterResults::default())
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
    let out = windows.judged(window.choice, true, found.clone());
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
    windows.judged(0, true, ContentFilterResults::default());
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
