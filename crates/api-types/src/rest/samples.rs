//! Answers have the shape of the API's own samples.

use super::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a sample of the API and writes it again: the bytes must be the same.
fn round_trip<T: Serialize + DeserializeOwned>(sample: &str) {
    let read: T = serde_json::from_str(sample).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), sample);
}

#[test]
fn samples_of_the_api_survive_reading_and_writing_byte_for_byte() {
    round_trip::<ChatCompletions>(
        r#"{"id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","object":"chat.completion","created":1718726686,"model":"phi3-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":19,"completion_tokens":3,"total_tokens":22}}"#,
    );
    round_trip::<ChatCompletions>(
        r#"{"id":"a1","object":"chat.completion","created":1718726686,"model":"mistral-large","choices":[{"index":0,"message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","type":"function","function":{"name":"get_flight","arguments":"{\"from\":\"SEA\"}"}}]},"finish_reason":"tool_calls","logprobs":null}],"usage":{"prompt_tokens":40,"completion_tokens":12,"total_tokens":52}}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"c1","object":"chat.completion.chunk","created":1718726371,"model":"phi3-mini","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"logprobs":null}]}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"c1","object":"chat.completion.chunk","created":1718726371,"model":"phi3-mini","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":19,"completion_tokens":3,"total_tokens":22}}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"c2","object":"chat.completion.chunk","created":1718726371,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"get_flight","arguments":""}}]},"finish_reason":null,"logprobs":null}],"usage":null}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"c2","object":"chat.completion.chunk","created":1718726371,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"from\":"}}]},"finish_reason":null,"logprobs":null}]}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"c4","object":"chat.completion.chunk","created":1718726371,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"content_filter","logprobs":null,"content_filter_results":{"violence":{"filtered":true,"severity":"high"}}}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}"#,
    );
    round_trip::<ChatCompletionsUpdate>(
        r#"{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"filtered":false,"detected":false}}}]}"#,
    );
    round_trip::<Completions>(
        r#"{"id":"t1","object":"text_completion","created":1718726686,"model":"davinci","choices":[{"index":0,"text":" 42.","finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}"#,
    );
    round_trip::<EmbeddingsResult>(
        r#"{"id":"e1","object":"list","model":"cohere-embed-v3-english","data":[{"index":0,"object":"embedding","embedding":[0.017,-0.023]},{"index":1,"object":"embedding","embedding":[0.003,0.041]}],"usage":{"prompt_tokens":15,"total_tokens":15}}"#,
    );
    round_trip::<EmbeddingsResult>(
        r#"{"id":"e1","object":"list","model":"m","data":[{"index":0,"object":"embedding","embedding":[-127,4]},{"index":1,"object":"embedding","embedding":"AAAAPw=="}],"usage":{"prompt_tokens":15,"total_tokens":15}}"#,
    );
    round_trip::<ModelInformation>(
        r#"{"model_name":"phi3-mini","model_type":"chat-completions","model_provider_name":"Microsoft"}"#,
    );
    round_trip::<ModelList>(
        r#"{"object":"list","data":[{"id":"phi","object":"model","created":1718726686,"owned_by":"Microsoft","routes":["/chat/completions"],"context_window":4096,"modalities":{"input":["text"],"output":["text"]},"parameters":{"n":{"minimum":1,"maximum":128},"seed":{},"temperature":{"minimum":0,"maximum":1.5}},"extra_parameters":["top_k"],"response_formats":["text"],"tools":false,"image_input":false,"logprobs":false,"suffix":false}]}"#,
    );
    round_trip::<content_safety::AnalyzeTextResult>(
        r#"{"blocklistsMatch":[],"categoriesAnalysis":[{"category":"Hate","severity":0},{"category":"SelfHarm","severity":0},{"category":"Sexual","severity":0},{"category":"Violence","severity":4}]}"#,
    );
    round_trip::<content_safety::ShieldPromptResult>(
        r#"{"userPromptAnalysis":{"attackDetected":true},"documentsAnalysis":[{"attackDetected":false}]}"#,
    );
}

#[test]
fn the_key_content_is_there_even_when_null() {
    let message = chat_completions::ChatResponseMessage::default();
    assert_eq!(serde_json::to_string(&message).unwrap(), r#"{"role":"assistant","content":null}"#);
}
