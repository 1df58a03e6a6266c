//! Tells what a reasoning model thinks from what it answers: the text between `<think>` and `</think>`.
//!
//! Separate because it is pure. Only a thought at the very beginning counts; tags later in the answer are text.

/// A piece of what the model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thought {
    /// Thinking.
    Reasoning(String),
    /// The answer.
    Answer(String),
}

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but white space so far.
    Start,
    /// Between the tags.
    Thinking,
    /// After the thought; white space before the answer is dropped.
    Gap,
    /// In the answer.
    Answering,
}

/// Splits text that arrives in pieces; tags are found across every cut and are in neither part.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    held: String,
}

impl Splitter {
    /// For an answer that begins with or without `<think>`.
    pub(crate) fn new() -> Self {
        Self { state: State::Start, held: String::new() }
    }

    /// For a prompt that already ends with `<think>`.
    pub(crate) fn thinking() -> Self {
        Self { state: State::Thinking, held: String::new() }
    }

    /// Whether the text now comes from a thought.
    pub(crate) fn is_thinking(&self) -> bool {
        self.state == State::Thinking
    }

    /// Takes the next text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Thought> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// What was held back when the text ends.
    pub(crate) fn finish(&mut self) -> Vec<Thought> {
        let rest = std::mem::take(&mut self.held);
        let rest = if self.state == State::Gap { String::new() } else { rest };
        if rest.is_empty() {
            return Vec::new();
        }
        vec![if self.state == State::Thinking {
            Thought::Reasoning(rest)
        } else {
            Thought::Answer(rest)
        }]
    }

    /// One transition; false when more text is needed.
    fn step(&mut self, out: &mut Vec<Thought>) -> bool {
        match self.state {
            State::Start => {
                let trimmed = self.held.trim_start();
                if let Some(rest) = trimmed.strip_prefix(OPEN) {
                    self.held = rest.trim_start_matches('\n').to_owned();
                    self.state = State::Thinking;
                } else if OPEN.starts_with(trimmed) {
                    return false;
                } else {
                    self.state = State::Answering;
                }
                true
            }
            State::Thinking => {
                if let Some(at) = self.held.find(CLOSE) {
                    let rest = self.held.split_off(at + CLOSE.len());
                    self.held.truncate(at);
                    emit(Thought::Reasoning(std::mem::replace(&mut self.held, rest)), out);
                    self.state = State::Gap;
                    return true;
                }
                let keep = crate::text::overlap(&self.held, CLOSE);
                let rest = self.held.split_off(self.held.len() - keep);
                emit(Thought::Reasoning(std::mem::replace(&mut self.held, rest)), out);
                false
            }
            State::Gap => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Answering;
                true
            }
            State::Answering => {
                emit(Thought::Answer(std::mem::take(&mut self.held)), out);
                false
            }
        }
    }
}

fn emit(thought: Thought, out: &mut Vec<Thought>) {
    let (Thought::Reasoning(text) | Thought::Answer(text)) = &thought;
    if !text.is_empty() {
        out.push(thought);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mut splitter: Splitter, pieces: &[&str]) -> (String, String) {
        let mut thoughts = Vec::new();
        for piece in pieces {
            thoughts.extend(splitter.push(piece));
        }
        thoughts.extend(splitter.finish());
        let mut both = (String::new(), String::new());
        for thought in thoughts {
            match thought {
                Thought::Reasoning(text) => both.0.push_str(&text),
                Thought::Answer(text) => both.1.push_str(&text),
            }
        }
        both
    }

    #[test]
    fn a_thought_is_split_off_across_every_cut() {
        let text = "\n<think>\nhm < 3</think>\n\nyes <b>";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let (thought, answer) = run(Splitter::new(), &pieces);
                assert_eq!(thought.trim_start(), "hm < 3", "{pieces:?}");
                assert_eq!(answer, "yes <b>", "{pieces:?}");
            }
        }
    }

    #[test]
    fn text_without_a_thought_is_the_answer_as_it_is() {
        assert_eq!(
            run(Splitter::new(), &["  <thin", "g> x"]),
            (String::new(), "  <thing> x".into())
        );
        assert_eq!(run(Splitter::new(), &["say <think>a</think>"]).1, "say <think>a</think>");
    }

    #[test]
    fn a_prompt_that_opens_the_thought_starts_inside_it() {
        assert_eq!(run(Splitter::thinking(), &["a</th", "ink>b"]), ("a".into(), "b".into()));
        assert_eq!(
            run(Splitter::thinking(), &["never ends </"]),
            ("never ends </".into(), String::new())
        );
    }
}
