//! Catalog names → models in memory.
//!
//! Separate from the models themselves: this is the only file of the service that knows the store, the roles of files and the
//! capabilities of a catalog entry. A file that two models share (the text half of a pair) is loaded once.

use crate::config::{Config, Device};
use crate::embedder::{Embedder, Embedders, ModelInfo, Purpose};
use crate::image::{ImageLimits, ImageSide, Preprocess};
use crate::local::Local;
use crate::pooling::{Finish, Pooling};
use crate::remote::Remote;
use crate::text::{Prefixes, Reader, TextSide};
use anyhow::Context as _;
use chassis::Tasks;
use model_store::{Engine, LocalModel, Progress, Store, Task};
use onnx::{BatchOptions, Batcher, Encoder, Runtime, Session, SessionOptions, Tokenizer};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The catalog's name of the ONNX Runtime library, and the role of its file.
const RUNTIME: (&str, &str) = ("onnxruntime", "library");

/// What a catalog entry says about an embedding model; other keys are for others.
#[derive(Debug, Deserialize)]
struct Capabilities {
    /// Lengths of vectors: the model's own first, then the shorter ones that may be asked for.
    dimensions: Vec<u32>,
    /// Every shorter length may be asked for.
    #[serde(default)]
    any_dimensions: bool,
    /// `text`, `query`, `document`.
    #[serde(default)]
    input_types: Vec<String>,
    #[serde(default)]
    prefixes: Prefixes,
    /// Longest text, special tokens included.
    #[serde(default)]
    max_tokens: usize,
    #[serde(default)]
    pooling: Pooling,
    #[serde(default)]
    normalize: bool,
    /// Output of the text graph; empty for the one with a usual name.
    #[serde(default)]
    text_output: String,
    /// Output of the image graph; empty for the one with a usual name.
    #[serde(default)]
    image_output: String,
    image: Option<Preprocess>,
}

/// Catalog names of everything `load` fetches.
#[must_use]
pub fn model_names(config: &Config) -> Vec<String> {
    let fetched = config.runtime.library.is_empty() && !config.serve.is_empty();
    let runtime = fetched.then(|| RUNTIME.0.to_owned());
    runtime.into_iter().chain(config.serve.iter().cloned()).collect()
}

/// Fetches what is missing and loads every model of `config.serve`, in that order; then come those of `config.remote`.
///
/// # Errors
/// When a model is unknown, cannot be fetched or cannot be loaded; the message names it.
pub async fn load(
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
    tasks: &Tasks,
) -> anyhow::Result<Embedders> {
    let mut embedders = Embedders::new();
    if !config.serve.is_empty() {
        load_local(config, store, progress, tasks, &mut embedders).await?;
    }
    for remote in &config.remote {
        let remote = Remote::build(remote)?;
        tasks.spawn_until_stop(remote.watch());
        add(&mut embedders, remote)?;
    }
    Ok(embedders)
}

async fn load_local(
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
    tasks: &Tasks,
    embedders: &mut Embedders,
) -> anyhow::Result<()> {
    let library = match config.runtime.library.as_str() {
        "" => store.ensure(RUNTIME.0, progress).await?.file(RUNTIME.1)?,
        path => PathBuf::from(path),
    };
    let runtime = tasks.spawn_blocking(move || Runtime::load(&library)).await??;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let decoders = Arc::new(Semaphore::new(cores));
    let mut loader = Loader { config, runtime, tasks, decoders, encoders: HashMap::new() };
    for name in &config.serve {
        let model = store.ensure(name, progress).await?;
        let local = loader.load(&model).await.with_context(|| format!("model `{name}`"))?;
        add(embedders, local)?;
    }
    Ok(())
}

fn add(embedders: &mut Embedders, embedder: impl Embedder + 'static) -> anyhow::Result<()> {
    let embedder: Arc<dyn Embedder> = Arc::new(embedder);
    embedders.add(&embedder).map_err(|twice| {
        anyhow::anyhow!("`embedding.serve` and `embedding.remote` name the model `{twice}` twice")
    })
}

struct Loader<'a> {
    config: &'a Config,
    runtime: Runtime,
    tasks: &'a Tasks,
    decoders: Arc<Semaphore>,
    /// By file and output.
    encoders: HashMap<(PathBuf, String), Arc<dyn Encoder>>,
}

impl Loader<'_> {
    async fn load(&mut self, model: &LocalModel) -> anyhow::Result<Local> {
        let entry = &model.entry;
        anyhow::ensure!(entry.engine == Engine::Onnx, "it is not a model for ONNX Runtime");
        let capabilities: Capabilities = entry.capabilities()?;
        let text = self.text(model, &capabilities).await?;
        let image = self.image(model, &capabilities).await?;
        anyhow::ensure!(
            text.is_some() || image.is_some(),
            "it embeds neither texts nor images: its task is {:?}, and it has neither `text_model` nor `vision_model`",
            entry.task
        );
        let info = info(model, &capabilities, text.as_ref(), image.is_some())?;
        let widths = text
            .iter()
            .map(|t| t.finish.rows.width)
            .chain(image.iter().map(|i| i.finish.rows.width));
        for width in widths {
            let declared = info.dimensions;
            anyhow::ensure!(
                u32::try_from(width) == Ok(declared),
                "its catalog entry says `dimensions` {declared}, but its vectors have {width}"
            );
        }
        Ok(Local { info, text, image, tasks: self.tasks.clone() })
    }

    async fn text(
        &mut self,
        model: &LocalModel,
        capabilities: &Capabilities,
    ) -> anyhow::Result<Option<TextSide>> {
        let main = || model.find("model").filter(|_| model.entry.task == Task::Embeddings);
        let Some(file) = model.find("text_model").or_else(main) else { return Ok(None) };
        let (tokens, words) = (capabilities.max_tokens, model.file("tokenizer")?);
        let tokenizer =
            self.tasks.spawn_blocking(move || Tokenizer::load(&words, tokens)).await??;
        let batch = &self.config.batch;
        let batch = BatchOptions { batch_tokens: batch.tokens, queue_tokens: batch.queue_tokens };
        let options = SessionOptions {
            pad_id: tokenizer.pad_id(),
            ..self.options(&capabilities.text_output)
        };
        let name = model.entry.name.clone();
        let encoder = self.encoder(&name, file, options, batch).await?;
        let finish = finish(&*encoder, capabilities)?;
        let (prefixes, overflow) = (capabilities.prefixes.clone(), self.config.overflow);
        let reader = Reader { tokenizer, prefixes, overflow };
        Ok(Some(TextSide { model: name, encoder, reader, finish }))
    }

    async fn image(
        &mut self,
        model: &LocalModel,
        capabilities: &Capabilities,
    ) -> anyhow::Result<Option<ImageSide>> {
        let main = || model.find("model").filter(|_| model.entry.task == Task::ImageEmbeddings);
        let Some(file) = model.find("vision_model").or_else(main) else { return Ok(None) };
        let preprocess = capabilities.image.clone();
        let preprocess =
            preprocess.context("its catalog entry lacks `image`, how pictures are prepared")?;
        let batch = &self.config.batch;
        let options = BatchOptions { batch_tokens: batch.images, queue_tokens: batch.queue_images };
        let session = SessionOptions {
            item_shape: preprocess.item_shape(),
            ..self.options(&capabilities.image_output)
        };
        let name = model.entry.name.clone();
        let encoder = self.encoder(&name, file, session, options).await?;
        let finish = finish(&*encoder, capabilities)?;
        let limits = &self.config.limits;
        let limits = ImageLimits { bytes: limits.image_bytes, pixels: limits.image_pixels };
        let decoders = Arc::clone(&self.decoders);
        Ok(Some(ImageSide {
            model: name,
            encoder,
            preprocess,
            limits,
            finish,
            batch: batch.images,
            decoders,
        }))
    }

    fn options(&self, output: &str) -> SessionOptions {
        let outputs = if output.is_empty() { Vec::new() } else { vec![output.to_owned()] };
        let device = match self.config.runtime.device {
            Device::Cpu => onnx::Device::Cpu,
            Device::Cuda => onnx::Device::Cuda,
        };
        SessionOptions {
            threads: self.config.runtime.threads,
            outputs,
            device,
            ..SessionOptions::default()
        }
    }

    /// The encoder over `file`, loaded once whoever asks.
    async fn encoder(
        &mut self,
        name: &str,
        file: PathBuf,
        options: SessionOptions,
        batch: BatchOptions,
    ) -> anyhow::Result<Arc<dyn Encoder>> {
        let key = (file.clone(), options.outputs.concat());
        if let Some(encoder) = self.encoders.get(&key) {
            return Ok(Arc::clone(encoder));
        }
        let (runtime, name) = (self.runtime.clone(), name.to_owned());
        let start = move || Batcher::start(&name, Session::load(&runtime, &file, &options)?, batch);
        let encoder: Arc<dyn Encoder> = Arc::new(self.tasks.spawn_blocking(start).await??);
        self.encoders.insert(key, Arc::clone(&encoder));
        Ok(encoder)
    }
}

fn finish(encoder: &dyn Encoder, capabilities: &Capabilities) -> anyhow::Result<Finish> {
    let (rows, pooling) = (encoder.rows(), capabilities.pooling);
    anyhow::ensure!(
        !rows.per_token || pooling != Pooling::None,
        "its graph gives a vector per token, so its catalog entry must say `pooling` (mean, cls or last)"
    );
    Ok(Finish { rows, pooling, normalize: capabilities.normalize })
}

fn info(
    model: &LocalModel,
    capabilities: &Capabilities,
    text: Option<&TextSide>,
    image: bool,
) -> anyhow::Result<ModelInfo> {
    let (dimensions, shorter) =
        capabilities.dimensions.split_first().context("its catalog entry has no `dimensions`")?;
    let max_tokens = text.map_or(0, |side| side.reader.tokenizer.max_tokens());
    let known = |purpose: &Purpose| capabilities.input_types.iter().any(|t| t == purpose.as_str());
    Ok(ModelInfo {
        name: model.entry.name.clone(),
        publisher: model.entry.publisher.clone(),
        version: model.version().to_owned(),
        text: text.is_some(),
        image,
        image_with_text: false,
        dimensions: *dimensions,
        shorter_dimensions: shorter.to_vec(),
        any_dimensions: capabilities.any_dimensions,
        max_tokens: u32::try_from(max_tokens).unwrap_or(u32::MAX),
        purposes: [Purpose::Query, Purpose::Document].into_iter().filter(known).collect(),
        images_per_call: 0,
        extra_parameters: Vec::new(),
    })
}
