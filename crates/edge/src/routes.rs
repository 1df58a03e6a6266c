//! The handlers, one file per path; each is called `handle` and says in what order things happen, nothing else.

pub mod chat_completions;
pub mod completions;
pub mod content_safety;
pub mod description;
pub mod embeddings;
pub mod image_embeddings;
pub mod info;
pub mod models;
pub mod text_blocklists;
