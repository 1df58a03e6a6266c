//! Catalog names → the ensemble in memory.
//!
//! Separate from the ensemble itself: this is the only file of the service that knows the store and the roles of files.

use crate::classify::{Ensemble, Parts, Views};
use crate::config::{Config, Device};
use crate::copies::Copies;
use crate::manifest::Manifest;
use crate::picture::SIDE;
use anyhow::Context as _;
use chassis::Tasks;
use model_store::{Progress, Store};
use onnx::{BatchOptions, Batcher, Encoder, OnnxError, Runtime, Session, SessionOptions};
use std::path::PathBuf;
use std::sync::Arc;

/// The catalog's name of the ONNX Runtime library, and the role of its file.
const RUNTIME: (&str, &str) = ("onnxruntime", "library");
/// Roles of a text model's files.
const MODEL: &str = "model";
const TOKENIZER: &str = "tokenizer";
/// The output of the text model that judges; see `bert` in the catalog's list of tools.
const SCORES: &str = "scores";

/// Catalog names of everything `load` fetches.
///
/// # Errors
/// When the embedded manifest is broken.
pub fn model_names(config: &Config) -> anyhow::Result<Vec<String>> {
    let manifest = Manifest::embedded().map_err(anyhow::Error::msg)?;
    let runtime = config.runtime.library.is_empty().then(|| RUNTIME.0.to_owned());
    let image = Some(config.image_model.clone()).filter(|name| !name.is_empty());
    Ok(runtime.into_iter().chain([manifest.encoder.name]).chain(image).collect())
}

/// Fetches what is missing and loads the ensemble.
///
/// # Errors
/// When a model is unknown, cannot be fetched or cannot be loaded; the message names it.
pub async fn load(
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
    tasks: &Tasks,
) -> anyhow::Result<Ensemble> {
    let manifest = Manifest::embedded().map_err(anyhow::Error::msg)?;
    let library = match config.runtime.library.as_str() {
        "" => store.ensure(RUNTIME.0, progress).await?.file(RUNTIME.1)?,
        path => PathBuf::from(path),
    };
    let encoder = store.ensure(&manifest.encoder.name, progress).await?;
    let (model, words) = (encoder.file(MODEL)?, encoder.file(TOKENIZER)?);
    let image = match config.image_model.as_str() {
        "" => None,
        name => Some((name.to_owned(), store.ensure(name, progress).await?.file(MODEL)?)),
    };
    let loader = Loader { config: config.clone() };
    let parts = move || loader.parts(&library, (&manifest.encoder.name, model), &words, image);
    let parts = tasks.spawn_blocking(parts).await?.context("content safety models")?;
    Ok(Ensemble::build(parts, encoder.version(), config.cache_entries, tasks.clone())?)
}

struct Loader {
    config: Config,
}

impl Loader {
    fn parts(
        &self,
        library: &std::path::Path,
        (name, model): (&str, PathBuf),
        words: &std::path::Path,
        image: Option<(String, PathBuf)>,
    ) -> Result<Parts, OnnxError> {
        let runtime = Runtime::load(library)?;
        let views = Views::load(words)?;
        let batch = &self.config.batch;
        let texts = BatchOptions { batch_tokens: batch.tokens, queue_tokens: batch.queue_tokens };
        let pictures =
            BatchOptions { batch_tokens: batch.images, queue_tokens: batch.queue_images };
        let outputs = vec![SCORES.to_owned()];
        let threads = self.config.runtime.threads.max(1);
        let options = SessionOptions { pad_id: views.pad_id(), outputs, threads, ..self.options() };
        let copy = || start(name, Session::load(&runtime, &model, &options)?, texts);
        let others = (1..self.config.runtime.copies()).map(|_| copy());
        let text = Arc::new(Copies::new(copy()?, others.collect::<Result<_, _>>()?));
        let image = match image {
            None => None,
            Some((name, file)) => {
                let side = usize::try_from(SIDE).unwrap_or_default();
                let options = SessionOptions { item_shape: vec![side, side, 3], ..self.options() };
                Some(start(&name, Session::load(&runtime, &file, &options)?, pictures)?)
            }
        };
        Ok(Parts { views, text, image })
    }

    fn options(&self) -> SessionOptions {
        let runtime = &self.config.runtime;
        let device = match runtime.device {
            Device::Cpu => onnx::Device::Cpu,
            Device::Cuda => onnx::Device::Cuda,
        };
        SessionOptions { threads: runtime.threads, device, ..SessionOptions::default() }
    }
}

fn start(name: &str, session: Session, batch: BatchOptions) -> Result<Arc<dyn Encoder>, OnnxError> {
    Ok(Arc::new(Batcher::start(name, session, batch)?))
}
