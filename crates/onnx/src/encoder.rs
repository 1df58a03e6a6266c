//! The seam between the services and whatever computes: items in, rows of `f32` out.
//!
//! Separate so that services and tests need no model: they hold an `Arc<dyn Encoder>`, which is a `Batcher` over a session in
//! production and a few lines of arithmetic in a test. One row per item, in the order of the items, always.

use crate::error::OnnxError;
use async_trait::async_trait;
use std::fmt;

/// One input of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Token ids of one text, special tokens included, without padding.
    Tokens(Vec<u32>),
    /// One dense input without the batch dimension, in the order that the graph wants: an image as channels × height × width
    /// or height × width × channels, or a vector for a classifier head.
    Tensor(Vec<f32>),
}

impl Item {
    /// What the item costs in a batch, before padding: its tokens, or 1 for a tensor.
    #[must_use]
    pub fn cost(&self) -> usize {
        match self {
            Self::Tokens(ids) => ids.len().max(1),
            Self::Tensor(_) => 1,
        }
    }
}

/// How a row is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowShape {
    /// Numbers per vector.
    pub width: usize,
    /// Whether a row holds one vector per token of the item (padding removed) instead of one in all.
    pub per_token: bool,
}

/// Something that turns items into rows.
#[async_trait]
pub trait Encoder: Send + Sync + fmt::Debug {
    /// The shape of every row.
    fn rows(&self) -> RowShape;

    /// One row per item, in the order of the items; nothing for nothing. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// A full queue, an item of the wrong kind or size, or a failure of the model.
    async fn encode(&self, items: Vec<Item>) -> Result<Vec<Vec<f32>>, OnnxError>;
}
