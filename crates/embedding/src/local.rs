//! A model of ours: the halves that embed texts and images, behind the seam.
//!
//! Separate from loading it. A model of both halves has one space: vectors of texts and images can be compared.

use crate::embedder::{EmbedRequest, Embedded, Embedder, Inputs, ModelInfo};
use crate::error::EmbeddingError;
use crate::image::ImageSide;
use crate::text::TextSide;
use async_trait::async_trait;
use chassis::Tasks;

/// One loaded model.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) info: ModelInfo,
    pub(crate) text: Option<TextSide>,
    pub(crate) image: Option<ImageSide>,
    pub(crate) tasks: Tasks,
}

#[async_trait]
impl Embedder for Local {
    fn models(&self) -> Vec<ModelInfo> {
        vec![self.info.clone()]
    }

    async fn embed(&self, request: EmbedRequest) -> Result<Embedded, EmbeddingError> {
        let EmbedRequest { model, inputs, dimensions, purpose, extra } = request;
        if let Some((name, value)) = extra.into_iter().next() {
            let message = format!("the model `{model}` has no parameter `{name}`");
            return Err(EmbeddingError::unsupported(name, value, message));
        }
        let dimensions = dimensions.and_then(|d| usize::try_from(d).ok());
        let embedded = match (inputs, &self.text, &self.image) {
            (Inputs::Texts(texts), Some(side), _) => {
                side.embed(texts, purpose, dimensions, &self.tasks).await
            }
            (Inputs::Images(images), _, Some(side)) => {
                side.embed(images, dimensions, &self.tasks).await
            }
            (Inputs::Texts(_), None, _) => {
                return Err(EmbeddingError::WrongKind { model, kind: "texts" });
            }
            (Inputs::Images(_), _, None) => {
                return Err(EmbeddingError::WrongKind { model, kind: "images" });
            }
        }?;
        // JSON has no word for them, and a vector with one of them finds nothing.
        if embedded.vectors.iter().flatten().any(|value| !value.is_finite()) {
            let reason = "a vector has a component that is not a number".to_owned();
            return Err(EmbeddingError::Model { model, reason });
        }
        Ok(embedded)
    }
}
