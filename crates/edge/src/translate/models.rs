//! What the services say of their models → abilities of deployments.

use crate::deployments::{Abilities, ChatAbilities, EmbeddingAbilities, ListedModel, Purpose};
use api_types::rpc::embedding::InputType;
use api_types::rpc::{chat, embedding};

/// A model of the chat service.
#[must_use]
pub fn from_chat(model: chat::Model) -> ListedModel {
    let chat::Model {
        name,
        publisher,
        context_tokens: _,
        completions,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
        version: _,
        chat,
    } = model;
    let abilities = ChatAbilities {
        chat,
        completions,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
    };
    ListedModel { name, publisher, abilities: Abilities::Chat(abilities) }
}

/// A model of the embedding service.
#[must_use]
pub fn from_embedding(model: embedding::Model) -> ListedModel {
    let input_types = model.input_types().filter_map(purpose).collect();
    let embedding::Model {
        name,
        publisher,
        text,
        image,
        image_with_text,
        dimensions,
        shorter_dimensions,
        any_dimensions,
        max_tokens: _,
        input_types: _,
        version: _,
    } = model;
    let abilities = EmbeddingAbilities {
        text,
        image,
        image_with_text,
        full_dimensions: dimensions,
        dimensions: shorter_dimensions,
        any_dimensions,
        input_types,
        extra_parameters: Vec::new(),
    };
    ListedModel { name, publisher, abilities: Abilities::Embedding(abilities) }
}

const fn purpose(kind: InputType) -> Option<Purpose> {
    match kind {
        InputType::Unspecified => None,
        InputType::Text => Some(Purpose::Text),
        InputType::Query => Some(Purpose::Query),
        InputType::Document => Some(Purpose::Document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_are_what_the_service_says() {
        let chat = from_chat(chat::Model {
            name: "m".into(),
            chat: true,
            tools: true,
            ..Default::default()
        });
        let Abilities::Chat(abilities) = chat.abilities else { panic!("a chat model") };
        assert!(abilities.chat && abilities.tools && !abilities.completions);
        let types = vec![InputType::Query as i32, InputType::Unspecified as i32];
        let model = embedding::Model {
            text: true,
            dimensions: 384,
            input_types: types,
            ..Default::default()
        };
        let Abilities::Embedding(abilities) = from_embedding(model).abilities else {
            panic!("an embedding model")
        };
        assert_eq!((abilities.full_dimensions, abilities.input_types), (384, vec![Purpose::Query]));
    }
}
