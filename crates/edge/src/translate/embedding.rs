//! `/embeddings` and `/images/embeddings` ⇄ gRPC, and the six ways to write a vector (contract, section 10).

use crate::context::Family;
use crate::translate::id;
use api_types::Fault;
use api_types::rest::embeddings::{
    Embedding, EmbeddingItem, EmbeddingOptions, EmbeddingsUsage, EncodingFormat, InputType,
};
use api_types::rest::image_embeddings::ImageInput;
use api_types::rest::text_input::TextInput;
use api_types::rest::{EmbeddingsRequest, EmbeddingsResult, Fields, ImageEmbeddingsRequest};
use api_types::rpc::embedding;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Largest magnitude of a quantised component.
const INT8_MOST: f32 = 127.0;
/// What separates the signed from the unsigned forms.
const OFFSET: i16 = 128;
/// Components in a byte of the packed forms.
const BITS: usize = 8;

/// The request for the model called `model`, with the extra parameters it takes.
#[must_use]
pub fn texts_to_rpc(
    request: EmbeddingsRequest,
    model: &str,
    extra_json: String,
) -> embedding::EmbedRequest {
    // `others` was sorted into `extra_json` by the check.
    let EmbeddingsRequest { input, options, user: _, others } = request;
    debug_assert!(others == Fields::new(), "the check takes what is left over");
    let items = input.into_iter().map(text).collect();
    let input = embedding::embed_request::Input::Texts(embedding::Texts { items });
    to_rpc(input, &options, model, extra_json)
}

/// The request for the model called `model`, with the extra parameters it takes; `images` are the decoded files in the order of
/// the request's inputs.
#[must_use]
pub fn images_to_rpc(
    request: ImageEmbeddingsRequest,
    images: Vec<Vec<u8>>,
    model: &str,
    extra_json: String,
) -> embedding::EmbedRequest {
    let ImageEmbeddingsRequest { input, options, others } = request;
    debug_assert!(others == Fields::new(), "the check takes what is left over");
    let items = input.into_iter().zip(images).map(|(input, image)| {
        let ImageInput { image: _, text } = input;
        embedding::ImageInput { image, text: text.unwrap_or_default() }
    });
    let input =
        embedding::embed_request::Input::Images(embedding::Images { items: items.collect() });
    to_rpc(input, &options, model, extra_json)
}

/// The image files of a request.
///
/// # Errors
/// 400 at the first that is not base64.
pub fn decode_images(request: &ImageEmbeddingsRequest) -> Result<Vec<Vec<u8>>, Fault> {
    request.input.iter().enumerate().map(|(i, input)| input.decode(i)).collect()
}

fn to_rpc(
    input: embedding::embed_request::Input,
    options: &EmbeddingOptions,
    model: &str,
    extra_json: String,
) -> embedding::EmbedRequest {
    // The deployment was chosen by the table; the encoding is the edge's own business.
    let EmbeddingOptions { model: _, dimensions, encoding_format: _, input_type } = options;
    let input_type = match input_type {
        InputType::Text => embedding::InputType::Text,
        InputType::Query => embedding::InputType::Query,
        InputType::Document => embedding::InputType::Document,
    };
    embedding::EmbedRequest {
        model: model.to_owned(),
        input: Some(input),
        dimensions: *dimensions,
        input_type: input_type.into(),
        extra_json,
    }
}

fn text(input: TextInput) -> embedding::TextInput {
    let input = match input {
        TextInput::Text(text) => embedding::text_input::Input::Text(text),
        TextInput::Tokens(ids) => embedding::text_input::Input::Tokens(embedding::TokenIds { ids }),
    };
    embedding::TextInput { input: Some(input) }
}

/// The answer, its vectors written as `format`.
#[must_use]
pub fn from_rpc(
    response: embedding::EmbedResponse,
    format: EncodingFormat,
    family: Family,
) -> EmbeddingsResult {
    // How long it waited is for the record alone.
    let embedding::EmbedResponse { model, vectors, usage, queued_us: _ } = response;
    let data = (0..).zip(vectors).map(|(index, vector)| {
        let embedding::Vector { values } = vector;
        EmbeddingItem { index, object: Default::default(), embedding: encode(values, format) }
    });
    EmbeddingsResult {
        id: id(family, "embd-"),
        object: Default::default(),
        model,
        data: data.collect(),
        usage: EmbeddingsUsage::new(usage.map_or(0, |u| u.prompt_tokens)),
    }
}

/// A vector written as `format`.
#[must_use]
pub fn encode(values: Vec<f32>, format: EncodingFormat) -> Embedding {
    match format {
        EncodingFormat::Float => Embedding::Floats(values),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Embedding::Base64(STANDARD.encode(bytes))
        }
        EncodingFormat::Int8 => Embedding::Integers(quantised(&values)),
        EncodingFormat::Uint8 => {
            Embedding::Integers(quantised(&values).into_iter().map(|v| v + OFFSET).collect())
        }
        EncodingFormat::Ubinary => Embedding::Integers(packed(&values)),
        EncodingFormat::Binary => {
            Embedding::Integers(packed(&values).into_iter().map(|v| v - OFFSET).collect())
        }
    }
}

/// Components scaled so that the largest of the vector is 127.
fn quantised(values: &[f32]) -> Vec<i16> {
    let most = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let scale = if most > 0.0 { INT8_MOST / most } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, reason = "within -127..127; NaN becomes 0")]
    values.iter().map(|v| (v * scale).round() as i16).collect()
}

/// A bit per component, 1 where it is positive, the first component in the highest bit; zero bits fill the last byte.
fn packed(values: &[f32]) -> Vec<i16> {
    values
        .chunks(BITS)
        .map(|chunk| {
            chunk
                .iter()
                .enumerate()
                .fold(0, |byte, (i, v)| byte | (i16::from(*v > 0.0) << (BITS - 1 - i)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::rest::Vocabulary;
    use serde_json::json;

    const VECTOR: [f32; 10] = [0.5, -1.0, 0.25, 0.0, -0.125, 1.0, 0.1, -0.1, 0.75, -0.75];

    fn written(format: EncodingFormat) -> serde_json::Value {
        serde_json::to_value(encode(VECTOR.to_vec(), format)).unwrap()
    }

    #[test]
    fn base64_decodes_to_the_floats() {
        let text = written(EncodingFormat::Base64);
        let bytes = STANDARD.decode(text.as_str().unwrap()).unwrap();
        let floats: Vec<f32> =
            bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(floats, VECTOR);
        assert_eq!(written(EncodingFormat::Float), json!(VECTOR));
    }

    #[test]
    fn bytes_are_scaled_by_the_largest_component() {
        assert_eq!(
            written(EncodingFormat::Int8),
            json!([64, -127, 32, 0, -16, 127, 13, -13, 95, -95])
        );
        assert_eq!(
            written(EncodingFormat::Uint8),
            json!([192, 1, 160, 128, 112, 255, 141, 115, 223, 33])
        );
        assert_eq!(encode(vec![0.0, 0.0], EncodingFormat::Int8), Embedding::Integers(vec![0, 0]));
    }

    #[test]
    fn bits_are_packed_from_the_highest_and_padded() {
        // 1,0,1,0,0,1,1,0 and 1,0 followed by six zeros.
        assert_eq!(written(EncodingFormat::Ubinary), json!([0b1010_0110, 0b1000_0000]));
        assert_eq!(written(EncodingFormat::Binary), json!([166 - 128, 128 - 128]));
    }

    #[test]
    fn inputs_keep_their_order_and_kind() {
        let body = json!({"input": ["a", [1, 2]], "dimensions": 64, "input_type": "query"});
        let parsed =
            EmbeddingsRequest::parse(body.to_string().as_bytes(), Vocabulary::INFERENCE, 8)
                .unwrap();
        let rpc = texts_to_rpc(parsed.request, "m", String::new());
        assert_eq!((rpc.dimensions, rpc.input_type()), (Some(64), embedding::InputType::Query));
        let Some(embedding::embed_request::Input::Texts(texts)) = rpc.input else {
            panic!("texts")
        };
        let tokens = embedding::text_input::Input::Tokens(embedding::TokenIds { ids: vec![1, 2] });
        assert_eq!(texts.items[1].input, Some(tokens));
    }

    #[test]
    fn the_answer_numbers_its_vectors() {
        let vector = |v: f32| embedding::Vector { values: vec![v] };
        let usage = Some(embedding::Usage { prompt_tokens: 5, images: 0 });
        let response = embedding::EmbedResponse {
            model: "m".into(),
            vectors: vec![vector(1.0), vector(2.0)],
            usage,
            queued_us: 1,
        };
        let body =
            serde_json::to_value(from_rpc(response, EncodingFormat::Float, Family::Inference))
                .unwrap();
        assert_eq!(body["data"][1], json!({"index": 1, "object": "embedding", "embedding": [2.0]}));
        assert_eq!(body["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
        assert_eq!(
            (body["object"].as_str(), body["id"].as_str().map(str::len)),
            (Some("list"), Some(32))
        );
    }
}
