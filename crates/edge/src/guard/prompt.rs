//! What of a request a safety policy looks at, and as what.
//!
//! Sources decide which judgements apply: a user may attack the model, a document may do so on somebody's behalf. What a policy
//! cannot look at, token ids and files behind a URL, is refused under a policy rather than let through unseen.

use crate::guard::Screening;
use api_types::Fault;
use api_types::rest::chat_completions::{ChatMessage, ChatRole, ContentPart};
use api_types::rest::text_input::TextInput;
use api_types::rest::{
    ChatCompletionsRequest, CompletionsRequest, DataUrl, EmbeddingsRequest, ImageEmbeddingsRequest,
};
use api_types::rpc::content_safety::{Segment, Source};

/// Marks of documents within a message (contract, section 13.1).
const DOCUMENTS_BEGIN: &str = "<documents>";
/// The end of them.
const DOCUMENTS_END: &str = "</documents>";

/// What a policy looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    /// In the order of the conversation.
    pub segments: Vec<Segment>,
    /// Whether they are turns of a conversation, which is judged as a whole besides.
    pub conversation: bool,
    /// Encoded image files.
    pub images: Vec<Vec<u8>>,
    /// What the caller calls all that.
    pub(super) names: Names,
    /// The first part that no policy can look at.
    unseen: Option<Fault>,
}

/// Fields of the request that what is judged came from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Names {
    /// Of the texts.
    whole: &'static str,
    /// Of each image.
    images: Vec<String>,
}

impl Names {
    /// `fault` of the content-safety service, whose own fields no caller knows, with the field of the caller.
    pub(super) fn translate(&self, fault: Fault) -> Fault {
        let Some(target) = &fault.target else { return fault };
        let image = target.strip_prefix("images.").and_then(|at| at.parse::<usize>().ok());
        let field = match image.and_then(|at| self.images.get(at)) {
            Some(image) => image.clone(),
            None if ["segments", "images"].contains(&target.as_str()) => self.whole.to_owned(),
            None => return fault,
        };
        fault.with_target(field)
    }
}

impl Prompt {
    /// The same, all of which a policy can look at.
    ///
    /// # Errors
    /// 400 at the first part that it cannot.
    pub(super) fn for_policy(mut self) -> Result<Self, Fault> {
        self.unseen.take().map_or(Ok(self), Err)
    }

    /// Characters of all texts together: where an answer begins, as annotations of streams count (contract, section 13.7).
    #[must_use]
    pub fn characters(&self) -> u64 {
        let counts = self.segments.iter().map(|segment| segment.text.chars().count());
        u64::try_from(counts.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// A conversation. `screening` is only looked at for whether there is a policy: without, nothing is copied.
    #[must_use]
    pub fn conversation(request: &ChatCompletionsRequest, screening: &Screening) -> Self {
        let mut prompt = Self { conversation: true, ..Self::of("messages") };
        if !screening.is_off() {
            for (i, message) in request.messages.iter().enumerate() {
                prompt.message(i, message);
            }
        }
        prompt
    }

    /// Prompts to continue.
    #[must_use]
    pub fn completions(request: &CompletionsRequest, screening: &Screening) -> Self {
        let mut prompt = Self::of("prompt");
        if !screening.is_off() {
            for completion in &request.prompts {
                match completion {
                    TextInput::Text(text) => prompt.text(Source::User, text),
                    TextInput::Tokens(_) => prompt.cannot("prompt", "token ids", "text"),
                }
            }
            prompt.text(Source::User, request.suffix.as_deref().unwrap_or_default());
        }
        prompt
    }

    /// Texts to embed.
    #[must_use]
    pub fn embeddings(request: &EmbeddingsRequest, screening: &Screening) -> Self {
        let mut prompt = Self::of("input");
        if !screening.is_off() {
            for input in &request.input {
                match input {
                    TextInput::Text(text) => prompt.text(Source::User, text),
                    TextInput::Tokens(_) => prompt.cannot("input", "token ids", "text"),
                }
            }
        }
        prompt
    }

    /// Images to embed; `images` are the decoded files.
    #[must_use]
    pub fn images(
        request: &ImageEmbeddingsRequest,
        images: &[Vec<u8>],
        screening: &Screening,
    ) -> Self {
        let mut prompt = Self::of("input");
        if !screening.is_off() {
            prompt.images = images.to_vec();
            prompt.names.images = (0..images.len()).map(|at| format!("input.{at}.image")).collect();
            for input in &request.input {
                prompt.text(Source::User, input.text.as_deref().unwrap_or_default());
            }
        }
        prompt
    }

    fn of(whole: &'static str) -> Self {
        let names = Names { whole, ..Names::default() };
        Self { names, ..Self::default() }
    }

    fn message(&mut self, index: usize, message: &ChatMessage) {
        let source = match message.role {
            ChatRole::System | ChatRole::Developer => Source::System,
            ChatRole::User => Source::User,
            ChatRole::Assistant => Source::Assistant,
            ChatRole::Tool => Source::Document,
        };
        for (j, part) in message.content.iter().enumerate() {
            let target = || format!("messages.{index}.content.{j}");
            match part {
                ContentPart::Text(text) => self.text(source, text),
                ContentPart::ImageUrl { url, .. } => {
                    match DataUrl::parse(url).map(|d| d.decode(&target())) {
                        Some(Ok(image)) => {
                            self.images.push(image);
                            self.names.images.push(target());
                        }
                        Some(Err(fault)) => self.unseen = self.unseen.take().or(Some(fault)),
                        None => self.cannot(&target(), "an image behind a URL", "a data URL"),
                    }
                }
                ContentPart::InputAudio { .. } | ContentPart::AudioUrl(_) => {
                    self.cannot(&target(), "sound", "text");
                }
            }
        }
        for call in &message.tool_calls {
            self.text(Source::Assistant, &call.function.arguments);
        }
    }

    fn text(&mut self, source: Source, text: &str) {
        if source == Source::User
            && let Some((before, rest)) = text.split_once(DOCUMENTS_BEGIN)
            && let Some((documents, after)) = rest.split_once(DOCUMENTS_END)
        {
            self.segment(source, before);
            self.segment(Source::Document, documents);
            self.text(source, after);
            return;
        }
        self.segment(source, text);
    }

    fn segment(&mut self, source: Source, text: &str) {
        if !text.trim().is_empty() {
            self.segments.push(Segment { source: source.into(), text: text.to_owned() });
        }
    }

    fn cannot(&mut self, target: &str, what: &str, instead: &str) {
        let message = format!(
            "`{target}` holds {what}, which the safety policy of this deployment cannot look at; send {instead}"
        );
        self.unseen = self.unseen.take().or_else(|| Some(Fault::invalid(target, message)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::rest::Vocabulary;
    use serde_json::{Value, json};

    fn conversation(messages: &Value) -> Prompt {
        let body = json!({"messages": messages}).to_string();
        let parsed = ChatCompletionsRequest::parse(body.as_bytes(), Vocabulary::OPENAI).unwrap();
        Prompt::conversation(&parsed.request, &policy("default"))
    }

    fn policy(name: &str) -> Screening {
        Screening { policy: name.to_owned(), ..Screening::default() }
    }

    fn sources(prompt: &Prompt) -> Vec<(Source, &str)> {
        prompt.segments.iter().map(|s| (s.source(), s.text.as_str())).collect()
    }

    #[test]
    fn every_role_has_its_source() {
        let prompt = conversation(&json!([
            {"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "t"}]));
        let expected = [
            (Source::System, "s"),
            (Source::System, "d"),
            (Source::User, "u"),
            (Source::Assistant, "a"),
            (Source::Assistant, "{}"),
            (Source::Document, "t"),
        ];
        assert_eq!(sources(&prompt), expected);
    }

    #[test]
    fn marked_documents_are_judged_as_documents() {
        let prompt = conversation(&json!([{"role": "user",
            "content": "sum up \"\"\" <documents> one </documents> \"\"\" please"}]));
        let expected = [
            (Source::User, "sum up \"\"\" "),
            (Source::Document, " one "),
            (Source::User, " \"\"\" please"),
        ];
        assert_eq!(sources(&prompt), expected);
    }

    #[test]
    fn images_are_decoded_and_those_behind_a_url_refused() {
        let image = |url: &str| {
            conversation(
                &json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]),
            )
        };
        assert_eq!(image("data:image/png;base64,aGk=").for_policy().unwrap().images, [b"hi"]);
        let fault = image("https://x/y.png").for_policy().unwrap_err();
        assert_eq!(fault.target.as_deref(), Some("messages.0.content.0"));
        assert!(image("data:image/png;base64,!").for_policy().is_err());
    }

    #[test]
    fn what_the_service_refuses_is_told_by_the_fields_of_the_caller() {
        let data = "data:image/png;base64,aGk=";
        let part = json!({"type": "image_url", "image_url": {"url": data}});
        let prompt = conversation(&json!([{"role": "user", "content": "u"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, part]}]));
        let told = |target: &str| prompt.names.translate(Fault::invalid(target, "bad")).target;
        assert_eq!(told("images.0").as_deref(), Some("messages.1.content.1"));
        assert_eq!(told("images").as_deref(), Some("messages"));
        assert_eq!(told("segments").as_deref(), Some("messages"));
        assert_eq!(told("policy").as_deref(), Some("policy"));

        let body = json!({"input": [{"image": data}, {"image": data}]}).to_string();
        let parsed = ImageEmbeddingsRequest::parse(body.as_bytes(), Vocabulary::OPENAI, 2).unwrap();
        let files = [b"hi".to_vec(), b"hi".to_vec()];
        let prompt = Prompt::images(&parsed.request, &files, &policy("default"));
        let fault = prompt.names.translate(Fault::invalid("images.1", "bad"));
        assert_eq!(fault.target.as_deref(), Some("input.1.image"));
    }

    #[test]
    fn token_ids_cannot_be_screened() {
        let parsed =
            CompletionsRequest::parse(br#"{"prompt": [1, 2]}"#, Vocabulary::OPENAI).unwrap();
        assert!(Prompt::completions(&parsed.request, &policy("default")).for_policy().is_err());
        assert!(Prompt::completions(&parsed.request, &policy("")).for_policy().is_ok());
    }
}
