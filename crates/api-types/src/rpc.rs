//! The gRPC schema, generated from `/proto`: one module per proto package.

#![expect(
    missing_docs,
    clippy::too_many_lines,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::missing_const_for_fn,
    reason = "generated code; the comments are in the proto files"
)]

/// `inference.chat.v1`
pub mod chat {
    tonic::include_proto!("inference.chat.v1");
}

/// `inference.embedding.v1`
pub mod embedding {
    tonic::include_proto!("inference.embedding.v1");
}

/// `inference.content_safety.v1`
pub mod content_safety {
    tonic::include_proto!("inference.content_safety.v1");
}

/// The descriptor set of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
