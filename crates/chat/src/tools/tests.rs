//! Tool calls must be found, and text left alone, for every way of cutting the text.

use super::*;

fn expected(most: usize) -> Expected {
    Expected { names: vec!["get_weather".into(), "add".into()], forced: false, most }
}

/// Merges neighbouring text, so that outcomes of different cuts can be compared.
fn run(expected: Expected, pieces: &[&str]) -> Vec<Found> {
    let mut scanner = Scanner::new(expected);
    let mut out: Vec<Found> = Vec::new();
    let mut take = |found: Vec<Found>| {
        for one in found {
            match (out.last_mut(), one) {
                (Some(Found::Text(before)), Found::Text(text)) => before.push_str(&text),
                (_, one) => out.push(one),
            }
        }
    };
    for piece in pieces {
        take(scanner.push(piece));
    }
    take(scanner.finish());
    // White space right before a call means nothing, and whether it stays depends on how the text was cut.
    for at in 1..out.len() {
        if let [Found::Text(before), Found::Call { .. }] = &mut out[at - 1..=at] {
            before.truncate(before.trim_end().len());
        }
    }
    out.retain(|found| !matches!(found, Found::Text(text) if text.is_empty()));
    out
}

fn under_every_cut(text: &str, want: &[Found]) {
    let cuts: Vec<usize> = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).collect();
    for (i, &first) in cuts.iter().enumerate() {
        for &second in &cuts[i..] {
            let pieces = [&text[..first], &text[first..second], &text[second..]];
            assert_eq!(run(expected(9), &pieces), want, "{pieces:?}");
        }
    }
    let singles: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
    assert_eq!(run(expected(9), &singles), want);
}

fn call(name: &str, arguments: &str) -> Found {
    Found::Call { name: name.into(), arguments: arguments.into() }
}

fn text(text: &str) -> Found {
    Found::Text(text.into())
}

#[test]
fn bare_json_that_names_a_tool_is_a_call() {
    under_every_cut(
        " {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa}ris\"}}\n",
        &[call("get_weather", r#"{"city":"Pa}ris"}"#)],
    );
}

#[test]
fn tags_around_calls_are_removed_and_text_before_them_stays() {
    under_every_cut(
        "Let me see <b>.\n<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n</tool_call>\n<tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call>",
        &[text("Let me see <b>."), call("add", r#"{"a":1}"#), call("add", "{}")],
    );
}

#[test]
fn a_fence_around_a_call_is_removed() {
    under_every_cut(
        "```json\n{\"name\": \"add\", \"arguments\": {\"a\": 2.50}}\n```",
        &[call("add", r#"{"a":2.5}"#)],
    );
}

#[test]
fn a_fence_or_tag_around_several_calls_is_removed_whole() {
    let calls = [call("add", r#"{"a":1}"#), call("add", "{}")];
    let inside = "\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n{\"name\":\"add\"}\n";
    under_every_cut(&format!("```json{inside}```\n"), &calls);
    under_every_cut(&format!("<tool_call>{inside}</tool_call>"), &calls);
    let [one, two] = calls;
    let fenced = format!("```{inside}```\nSee ```rust\nfn main() {{}}\n```");
    under_every_cut(&fenced, &[one, two, text("\nSee ```rust\nfn main() {}\n```")]);
}

#[test]
fn a_fence_around_anything_else_is_text() {
    for plain in [
        "Look:\n```json\n{\"city\": \"Paris\"}\n```\nDone.",
        "```rust\nfn main() {}\n```",
        "```",
        "a `code` and ``more`` < tool",
        "{\"city\": 1} and {\"name\": \"nobody\", \"arguments\": {}}",
        "{\"name\": \"nobody\", \"arguments\": {}} <tool_call> no",
        "<tool_call>not json</tool_call>",
        "[1, 2]",
        "{\"name\": \"add\"",
        "   \n ",
        "é {\"name\": \"add\", \"arguments\": {}}",
    ] {
        under_every_cut(plain, &[text(plain)]);
    }
}

#[test]
fn a_list_and_the_form_of_the_api_are_calls_too() {
    under_every_cut(
        r#"[{"name":"add","parameters":{"a":1}},{"type":"function","function":{"name":"add","arguments":"{\"b\":2}"}}]"#,
        &[call("add", r#"{"a":1}"#), call("add", r#"{"b":2}"#)],
    );
}

#[test]
fn several_bare_calls_follow_each_other() {
    under_every_cut(
        "{\"name\":\"add\"}\n{\"name\":\"add\",\"arguments\":{}}",
        &[call("add", "{}"), call("add", "{}")],
    );
}

#[test]
fn an_unclosed_tag_at_the_end_still_holds_its_call() {
    under_every_cut("<tool_call>{\"name\":\"add\"}", &[call("add", "{}")]);
}

#[test]
fn only_as_many_calls_as_allowed_come_out() {
    let twice = "{\"name\":\"add\"}\n{\"name\":\"add\"}";
    assert_eq!(run(expected(1), &[twice]), [call("add", "{}")]);
    let mut scanner = Scanner::new(expected(1));
    scanner.push(twice);
    assert!(scanner.is_full());
}

#[test]
fn a_forced_call_that_was_cut_off_keeps_its_name_and_what_there_is_of_its_arguments() {
    let forced = || Expected { forced: true, ..expected(1) };
    let cut = "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa";
    assert_eq!(run(forced(), &[cut]), [call("get_weather", "{\"city\": \"Pa")]);
    assert_eq!(run(forced(), &["{\"name\": \"get_we"]), []);
}

#[test]
fn json_that_cannot_be_a_call_is_shown_at_once() {
    let mut scanner = Scanner::new(expected(9));
    assert_eq!(scanner.push("{\"ci"), [text("{\"ci")]);
    let mut scanner = Scanner::new(expected(9));
    assert_eq!(scanner.push("{\"na"), []);
    assert_eq!(scanner.push("tion\": 1"), [text("{\"nation\": 1")]);
}
