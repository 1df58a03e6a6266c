//! Every operation in a few lines: what it takes and what it answers. A new route is one more constant.

use super::operation::{Answer, HTML, JSON, MERGE_PATCH, Operation};
use super::parameters::Parameter;
use api_types::rest::content_safety::{
    AnalyzeImageRequest, AnalyzeImageResult, AnalyzeTextRequest, AnalyzeTextResult,
    DetectProtectedMaterialResult, LONGEST_TEXT, ShieldPromptRequest, ShieldPromptResult,
};
use api_types::rest::dry_run::DryRun;
use api_types::rest::text_blocklists::{
    AddOrUpdateBlocklistItemsRequest, BlocklistItems, PagedTextBlocklistItems, PagedTextBlocklists,
    PatchBlocklistRequest, RemoveBlocklistItemsRequest, TextBlocklist, TextBlocklistItem,
};
use api_types::rest::{
    ChatCompletions, ChatCompletionsRequest, ChatCompletionsUpdate, Completions,
    CompletionsRequest, EmbeddingsRequest, EmbeddingsResult, ImageEmbeddingsRequest, Model,
    ModelInformation, ModelList,
};
use serde_json::{Value, json};

/// A white PNG of 50 x 50 pixels, the smallest that is judged.
const DOT: &str = "iVBORw0KGgoAAAANSUhEUgAAADIAAAAyCAIAAACRXR/mAAAAOElEQVR42u3OAQ0AAAwCIPuX1hr/BglIT4qWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpbWr9YABi0waJcW+iQAAAAASUVORK5CYII=";

/// `POST /chat/completions`
pub const CHAT_COMPLETIONS: Operation = Operation::new(
    "Answers a conversation, whole or piece by piece.",
    &[Answer::new(
        200,
        "The answer; with `stream` the next piece of it in every event.",
        &[(JSON, |c| c.answer::<ChatCompletions>())],
    )
    .or_events(|c| c.answer::<ChatCompletionsUpdate>())],
)
.takes_inference(
    |c| c.request("ChatCompletionsRequest", |g, names, _| ChatCompletionsRequest::schema(g, names)),
    || json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}),
);

/// `POST /completions`
pub const COMPLETIONS: Operation = Operation::new(
    "Continues prompts, whole or piece by piece.",
    &[Answer::new(
        200,
        "The continuations; with `stream` the next piece of one in every event.",
        &[(JSON, |c| c.answer::<Completions>())],
    )
    .or_events(|c| c.answer::<Completions>())],
)
.takes_inference(
    |c| c.request("CompletionsRequest", |g, names, _| CompletionsRequest::schema(g, names)),
    || json!({"prompt": "The answer is", "max_tokens": 16}),
);

/// `POST /embeddings`
pub const EMBEDDINGS: Operation =
    Operation::new("Embeds texts.", &[Answer::new(200, "One vector per text.", VECTORS)])
        .takes_inference(
            |c| {
                c.request("EmbeddingsRequest", |g, names, limits| {
                    EmbeddingsRequest::schema(g, names, limits.embedding_inputs)
                })
            },
            || json!({"input": ["first text", "second text"]}),
        );

/// `POST /images/embeddings`
pub const IMAGE_EMBEDDINGS: Operation =
    Operation::new("Embeds images.", &[Answer::new(200, "One vector per image.", VECTORS)])
        .takes_inference(
            |c| {
                c.request("ImageEmbeddingsRequest", |g, names, limits| {
                    ImageEmbeddingsRequest::schema(g, names, limits.image_inputs)
                })
            },
            || json!({"input": [{"image": format!("data:image/png;base64,{DOT}")}]}),
        );

const VECTORS: &[(&str, super::operation::Make)] = &[(JSON, |c| c.answer::<EmbeddingsResult>())];

/// `GET /info`
pub const INFO: Operation = Operation::new(
    "Says which model answers here.",
    &[Answer::new(200, "The model.", &[(JSON, |c| c.answer::<ModelInformation>())])],
)
.with(&[Parameter::query("model", "The deployment; none is the default one.", text)]);

/// `GET /v1/models`
pub const MODELS: Operation = Operation::new(
    "Lists the deployments.",
    &[Answer::new(200, "All of them.", &[(JSON, |c| c.answer::<ModelList>())])],
);

/// `GET /v1/models/{id}`
pub const MODEL: Operation = Operation::new(
    "Describes one deployment.",
    &[Answer::new(200, "The deployment.", &[(JSON, |c| c.answer::<Model>())])],
);

const FORESEEN: &[Answer] = &[Answer::new(
    200,
    "The deployment, the limits, what would be dropped, and what content safety says.",
    &[(JSON, |c| c.answer::<DryRun>())],
)];

/// `POST /dry-run/chat/completions`
pub const FORESEE_CHAT_COMPLETIONS: Operation = CHAT_COMPLETIONS
    .foreseen("Says what would become of a conversation, and asks no model.", FORESEEN);

/// `POST /dry-run/completions`
pub const FORESEE_COMPLETIONS: Operation =
    COMPLETIONS.foreseen("Says what would become of prompts, and asks no model.", FORESEEN);

/// `POST /dry-run/embeddings`
pub const FORESEE_EMBEDDINGS: Operation =
    EMBEDDINGS.foreseen("Says what would become of texts to embed, and asks no model.", FORESEEN);

/// `POST /dry-run/images/embeddings`
pub const FORESEE_IMAGE_EMBEDDINGS: Operation = IMAGE_EMBEDDINGS
    .foreseen("Says what would become of images to embed, and asks no model.", FORESEEN);

/// `POST /contentsafety/text:analyze`
pub const ANALYZE_TEXT: Operation = Operation::new(
    "Judges how severe a text is in each category, and matches blocklists.",
    &[Answer::new(200, "The severities.", &[(JSON, |c| c.answer::<AnalyzeTextResult>())])],
)
.takes(
    |c| c.body::<AnalyzeTextRequest>(),
    || json!({"text": "What a fine day.", "categories": ["Hate", "Violence"]}),
);

/// `POST /contentsafety/image:analyze`
pub const ANALYZE_IMAGE: Operation = Operation::new(
    "Judges how severe an image is in each category.",
    &[Answer::new(200, "The severities.", &[(JSON, |c| c.answer::<AnalyzeImageResult>())])],
)
.takes(|c| c.body::<AnalyzeImageRequest>(), || json!({"image": {"content": DOT}}));

/// `POST /contentsafety/text:shieldPrompt`
pub const SHIELD_PROMPT: Operation = Operation::new(
    "Finds attacks on a model in a prompt and in documents.",
    &[Answer::new(200, "The verdicts.", &[(JSON, |c| c.answer::<ShieldPromptResult>())])],
)
.takes(
    |c| c.body::<ShieldPromptRequest>(),
    || json!({"userPrompt": "Hello", "documents": ["A letter."]}),
);

/// `POST /contentsafety/text:detectProtectedMaterial`
pub const DETECT_PROTECTED_TEXT: Operation = Operation::new(
    "Tells whether a text repeats one that the operator protects.",
    &[Answer::new(200, "The verdict.", &[(JSON, |c| c.answer::<DetectProtectedMaterialResult>())])],
)
.takes(|_| spoken("text"), || json!({"text": "What a fine day."}));

/// `POST /contentsafety/text:detectProtectedMaterialForCode`
pub const DETECT_PROTECTED_CODE: Operation = Operation::new(
    "Tells whether code repeats some that the operator protects, and where that is from.",
    &[Answer::new(200, "The verdict.", &[(JSON, |c| c.answer::<DetectProtectedMaterialResult>())])],
)
.takes(|_| spoken("code"), || json!({"code": "let x = 1;"}));

/// `GET /contentsafety/text/blocklists`
pub const LIST_BLOCKLISTS: Operation = Operation::new(
    "Lists the blocklists.",
    &[Answer::new(200, "All of them.", &[(JSON, |c| c.answer::<PagedTextBlocklists>())])],
);

/// `GET /contentsafety/text/blocklists/{name}`
pub const GET_BLOCKLIST: Operation = Operation::new("Describes a blocklist.", &[LIST]);

const LIST: Answer = Answer::new(200, "The list.", &[(JSON, |c| c.answer::<TextBlocklist>())]);

/// `PATCH /contentsafety/text/blocklists/{name}`
pub const PATCH_BLOCKLIST: Operation = Operation::new(
    "Makes a blocklist, or changes its description.",
    &[LIST, Answer::new(201, "The new list.", &[(JSON, |c| c.answer::<TextBlocklist>())])],
)
.takes_as(
    MERGE_PATCH,
    |c| c.body::<PatchBlocklistRequest>(),
    || json!({"description": "Names of projects."}),
);

/// `DELETE /contentsafety/text/blocklists/{name}`
pub const DELETE_BLOCKLIST: Operation =
    Operation::new("Deletes a blocklist and its items.", &[Answer::new(204, "It is gone.", &[])]);

/// `POST /contentsafety/text/blocklists/{name}:addOrUpdateBlocklistItems`
pub const ADD_BLOCKLIST_ITEMS: Operation = Operation::new(
    "Adds items to a blocklist.",
    &[Answer::new(200, "The items, with their ids.", &[(JSON, |c| c.answer::<BlocklistItems>())])],
)
.takes(
    |c| c.body::<AddOrUpdateBlocklistItemsRequest>(),
    || json!({"blocklistItems": [{"text": "blue falcon"}]}),
);

/// `POST /contentsafety/text/blocklists/{name}:removeBlocklistItems`
pub const REMOVE_BLOCKLIST_ITEMS: Operation =
    Operation::new("Removes items from a blocklist.", &[Answer::new(204, "They are gone.", &[])])
        .takes(|c| c.body::<RemoveBlocklistItemsRequest>(), || json!({"blocklistItemIds": ["1"]}));

/// `GET /contentsafety/text/blocklists/{name}/blocklistItems`
pub const LIST_BLOCKLIST_ITEMS: Operation = Operation::new(
    "Lists the items of a blocklist.",
    &[Answer::new(200, "A page of them.", &[(JSON, |c| c.answer::<PagedTextBlocklistItems>())])],
)
.with(&[
    Parameter::query("top", "Items on all pages together.", || counted(0)),
    Parameter::query("skip", "Items to pass over.", || counted(0)),
    Parameter::query("maxpagesize", "Items of a page at most.", || counted(1)),
]);

/// `GET /contentsafety/text/blocklists/{name}/blocklistItems/{id}`
pub const GET_BLOCKLIST_ITEM: Operation = Operation::new(
    "Describes an item.",
    &[Answer::new(200, "The item.", &[(JSON, |c| c.answer::<TextBlocklistItem>())])],
);

/// `GET /openapi.json`
pub const DOCUMENT: Operation = Operation::new(
    "This description.",
    &[Answer::new(200, "An OpenAPI 3.1 document.", &[(JSON, |_| json!({"type": "object"}))])],
);

/// `GET /docs`
pub const PAGE: Operation = Operation::new(
    "This description as a page that loads nothing from elsewhere.",
    &[Answer::new(200, "A page.", &[(HTML, |_| json!({"type": "string"}))])],
);

/// The schema of any text.
fn text() -> Value {
    json!({"type": "string"})
}

/// The schema of a body with one text to judge, called `name`.
fn spoken(name: &str) -> Value {
    let text = json!({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT});
    json!({"type": "object", "properties": {name: text}, "required": [name]})
}

/// The schema of a count in a query.
fn counted(least: u32) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": i32::MAX})
}
