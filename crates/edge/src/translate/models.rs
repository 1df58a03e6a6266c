//! What the services say of their models → abilities of deployments → what the API says of them.

use crate::deployments::{
    Abilities, ChatAbilities, Deployment, EmbeddingAbilities, ListedModel, Modality, Parameter,
    ParameterLimit, ParameterLimits, Purpose,
};
use api_types::rest::ModelAbilities;
use api_types::rest::embeddings::EncodingFormat;
use api_types::rest::models::{ModelModalities, ParameterRange, VectorLengths};
use api_types::rpc::embedding::InputType;
use api_types::rpc::{chat, embedding};

/// A model of the chat service.
#[must_use]
pub fn from_chat(model: chat::Model) -> ListedModel {
    let chat::Model {
        name,
        publisher,
        context_tokens,
        completions,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
        version,
        chat,
        parameter_limits,
        suffix,
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
        context_tokens,
        // A newer service may limit what this edge does not know; the model then refuses it.
        parameters: ParameterLimits::new(parameter_limits.into_iter().filter_map(limit)),
        suffix,
    };
    ListedModel { name, publisher, version, abilities: Abilities::Chat(abilities) }
}

fn limit(limit: chat::ParameterLimit) -> Option<(Parameter, ParameterLimit)> {
    let chat::ParameterLimit { name, minimum, maximum, refused } = limit;
    Some((Parameter::named(&name)?, ParameterLimit { minimum, maximum, refused }))
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
        max_tokens,
        input_types: _,
        version,
        images_per_call,
        extra_parameters,
    } = model;
    let abilities = EmbeddingAbilities {
        text,
        image,
        image_with_text,
        full_dimensions: dimensions,
        dimensions: shorter_dimensions,
        any_dimensions,
        input_types,
        extra_parameters,
        max_tokens,
        // Vectors are written by the edge, in every form.
        encodings: EncodingFormat::ALL.to_vec(),
        images_per_call,
    };
    ListedModel { name, publisher, version, abilities: Abilities::Embedding(abilities) }
}

/// What `GET /v1/models` says of a deployment; `most_images` is the edge's own bound of one request.
#[must_use]
pub fn abilities(deployment: &Deployment, most_images: usize) -> ModelAbilities {
    let served = Modality::ALL.into_iter().filter(|modality| deployment.serves(*modality));
    let routes = served.map(|modality| modality.route().to_owned()).collect();
    let said = match &deployment.abilities {
        Abilities::Chat(chat) => of_chat(chat),
        Abilities::Embedding(embedding) => of_embedding(embedding, most_images),
    };
    ModelAbilities { routes, ..said }
}

fn of_chat(chat: &ChatAbilities) -> ModelAbilities {
    let ChatAbilities {
        // These two are the routes.
        chat: _,
        completions: _,
        tools,
        json_object,
        json_schema,
        images,
        audio,
        logprobs,
        extra_parameters,
        context_tokens,
        parameters,
        suffix,
    } = chat;
    let taken = Parameter::ALL.into_iter().filter(|parameter| parameters.takes(*parameter));
    let range = |parameter: Parameter| {
        let (minimum, maximum) = parameters.range(parameter).unzip();
        (parameter.as_str().to_owned(), ParameterRange { minimum, maximum })
    };
    ModelAbilities {
        context_window: known(*context_tokens),
        modalities: ModelModalities {
            input: words([("text", true), ("image", *images), ("audio", *audio)]),
            output: words([("text", true)]),
        },
        parameters: Some(taken.map(range).collect()),
        extra_parameters: extra_parameters.clone(),
        response_formats: Some(words([
            ("text", true),
            ("json_object", *json_object),
            ("json_schema", *json_schema),
        ])),
        tools: Some(*tools),
        image_input: Some(*images),
        logprobs: Some(*logprobs),
        suffix: Some(*suffix),
        ..ModelAbilities::default()
    }
}

fn of_embedding(embedding: &EmbeddingAbilities, most_images: usize) -> ModelAbilities {
    let EmbeddingAbilities {
        text,
        image,
        image_with_text,
        full_dimensions,
        dimensions,
        any_dimensions,
        input_types,
        extra_parameters,
        max_tokens,
        encodings,
        images_per_call,
    } = embedding;
    let most_images = u32::try_from(most_images).unwrap_or(u32::MAX);
    let purposes = [
        ("text", true),
        ("query", input_types.contains(&Purpose::Query)),
        ("document", input_types.contains(&Purpose::Document)),
    ];
    ModelAbilities {
        context_window: known(*max_tokens),
        modalities: ModelModalities {
            input: words([("text", *text), ("image", *image)]),
            output: words([("embedding", true)]),
        },
        extra_parameters: extra_parameters.clone(),
        encodings: Some(encodings.iter().map(|encoding| encoding.as_str().to_owned()).collect()),
        dimensions: Some(VectorLengths {
            default: known(*full_dimensions),
            others: dimensions.clone(),
            any_shorter: *any_dimensions,
        }),
        input_types: Some(words(purposes)),
        image_with_text: image.then_some(*image_with_text),
        images_per_call: image.then(|| known(*images_per_call).unwrap_or(most_images)),
        ..ModelAbilities::default()
    }
}

/// Services say 0 of what they do not know.
fn known(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

fn words<const N: usize>(words: [(&str, bool); N]) -> Vec<String> {
    words.into_iter().filter(|(_, holds)| *holds).map(|(word, _)| word.to_owned()).collect()
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
    use serde_json::json;

    fn deployment(abilities: Abilities) -> Deployment {
        let (name, model) = ("m".to_owned(), "m".to_owned());
        Deployment {
            name,
            model,
            publisher: "p".into(),
            version: String::new(),
            policy: String::new(),
            fallback: None,
            abilities,
        }
    }

    #[test]
    fn what_a_chat_model_does_not_take_is_not_listed() {
        let limit = |name: &str, maximum, refused| chat::ParameterLimit {
            name: name.into(),
            minimum: None,
            maximum,
            refused,
        };
        let model = from_chat(chat::Model {
            chat: true,
            images: true,
            json_object: true,
            context_tokens: 4096,
            parameter_limits: vec![
                limit("temperature", Some(1.0), false),
                limit("top_p", None, true),
                limit("from_the_future", None, true),
            ],
            ..Default::default()
        });
        let said = abilities(&deployment(model.abilities), 64);
        let said = serde_json::to_value(said).unwrap();
        assert_eq!(said["routes"], json!(["/chat/completions"]));
        assert_eq!(said["context_window"], 4096);
        assert_eq!(said["modalities"], json!({"input": ["text", "image"], "output": ["text"]}));
        assert_eq!(said["parameters"]["temperature"], json!({"minimum": 0, "maximum": 1}));
        assert_eq!(said["parameters"]["seed"], json!({}));
        assert_eq!(said["parameters"].get("top_p"), None);
        assert_eq!(said["response_formats"], json!(["text", "json_object"]));
        assert_eq!((&said["tools"], &said["image_input"]), (&json!(false), &json!(true)));
        assert_eq!(said.get("encodings"), None);
    }

    #[test]
    fn an_embedding_model_says_its_vectors() {
        let model = from_embedding(embedding::Model {
            image: true,
            dimensions: 384,
            shorter_dimensions: vec![128],
            ..Default::default()
        });
        let said = serde_json::to_value(abilities(&deployment(model.abilities), 64)).unwrap();
        assert_eq!(said["routes"], json!(["/images/embeddings"]));
        let lengths = json!({"default": 384, "others": [128], "any_shorter": false});
        assert_eq!(said["dimensions"], lengths);
        let all = json!(["float", "base64", "binary", "ubinary", "int8", "uint8"]);
        assert_eq!((&said["encodings"], &said["images_per_call"]), (&all, &json!(64)));
        assert_eq!(said.get("parameters"), None);
    }

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
