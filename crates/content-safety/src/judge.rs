//! The seam between the service and whatever judges: texts and pictures in, findings out.
//!
//! Separate so that the service and its tests need no model: they hold an `Arc<dyn Judge>`, which is the ensemble of
//! `classify` in production and a list of words in a test.

use crate::category::{Grades, TextFinding};
use crate::error::SafetyError;
use crate::picture::Picture;
use async_trait::async_trait;
use std::fmt;

/// Something that judges.
#[async_trait]
pub trait Judge: Send + Sync + fmt::Debug {
    /// One finding per text, in their order. A long text is judged whole; its worst part decides.
    ///
    /// # Errors
    /// When the models are at capacity or fail.
    async fn texts(&self, texts: Vec<String>) -> Result<Vec<TextFinding>, SafetyError>;

    /// Grades of each picture, in their order; a category that no model judges is absent.
    ///
    /// # Errors
    /// `NoImages` when there is no image model; else as for texts.
    async fn pictures(&self, pictures: Vec<Picture>) -> Result<Vec<Grades>, SafetyError>;

    /// Names the models and thresholds that judge.
    fn version(&self) -> &str;
}
