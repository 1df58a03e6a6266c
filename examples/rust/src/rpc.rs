//! The clients and messages, generated from the protos by `build.rs`: a module for each package.

#![expect(
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the comments are in the proto files"
)]

pub(crate) mod chat {
    tonic::include_proto!("inference.chat.v1");
}

pub(crate) mod embedding {
    tonic::include_proto!("inference.embedding.v1");
}

pub(crate) mod content_safety {
    tonic::include_proto!("inference.content_safety.v1");
}
