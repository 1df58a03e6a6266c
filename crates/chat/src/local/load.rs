//! From a file to a running engine: the model, its context, its threads.
//!
//! Separate from the handle, because all that can go wrong here goes wrong once, at the start.

use super::engine::{Engine, Settings, Shared};
use super::job::{Job, Sink};
use super::prepare::{self, Intake, Preparer};
use super::prompt::{ChatTemplate, SpecialTexts};
use super::sampling::EXTRA_PARAMETERS;
use super::{LocalEngine, LocalOptions, Stopper};
use crate::backend::ModelInfo;
use crate::config::EngineConfig;
use crate::error::ChatError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Stack of the preparing thread: the regular expressions of some tokenisers recurse once per character. Only pages that
/// are touched take memory.
const PREPARE_STACK: usize = 512 * 1024 * 1024;
/// Stack of the engine's thread: llama.cpp builds its graphs there.
const ENGINE_STACK: usize = 8 * 1024 * 1024;
/// Where Linux tells which processors are threads of one core.
const TOPOLOGY: &str = "/sys/devices/system/cpu";

/// The library's state for this process: it can be set up once only, and must outlive every model.
static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();

fn backend() -> Result<&'static LlamaBackend, String> {
    let backend = BACKEND.get_or_init(|| {
        // What it logs names files and sizes, never a prompt; grammars are kept out where they are built.
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().ok()
    });
    backend
        .as_ref()
        .ok_or_else(|| "llama.cpp is in use by somebody else in this process".to_owned())
}

/// What the engine's thread found in the file.
#[derive(Debug)]
struct Found {
    model: Arc<LlamaModel>,
    limit: u32,
}

pub(super) async fn load(options: LocalOptions) -> Result<LocalEngine, ChatError> {
    let name = options.name.clone();
    let failed = |reason: String| ChatError::Load { model: name.clone(), reason };
    let engine = &options.engine;
    let places = engine.parallel.saturating_add(engine.queue);
    let shared = Arc::new(Shared::default());
    let (jobs, inbox) = sync_channel(places);
    let (tell, told) = oneshot::channel();
    let thread = spawn_engine(options.clone(), Arc::clone(&shared), inbox, tell).map_err(failed)?;
    let found =
        told.await.map_err(|_| failed("its thread has panicked".to_owned()))?.map_err(failed)?;
    let preparer = preparer(&options, &found).map_err(failed)?;
    let info = info(&options, &preparer);
    let (intake, requests) = sync_channel(places);
    let stopper = Stopper { shared, engine: thread.thread().clone(), threads: Arc::default() };
    let waker = thread.thread().clone();
    let prepare = spawn_preparer(&options.name, preparer, requests, move |job, sink| {
        // Full is impossible: there are no more permits than places. Closed means that the engine has ended.
        let _ended = jobs.try_send((job, sink));
        waker.unpark();
    });
    let prepare = prepare.map_err(failed)?;
    *stopper.threads.lock().unwrap_or_else(PoisonError::into_inner) = vec![thread, prepare];
    tracing::info!(
        model = info.name,
        context_tokens = info.context_tokens,
        chat = info.chat,
        "model loaded"
    );
    Ok(LocalEngine { info, intake, places: Arc::new(Semaphore::new(places)), stopper })
}

type Told = oneshot::Sender<Result<Found, String>>;

fn spawn_engine(
    options: LocalOptions,
    shared: Arc<Shared>,
    inbox: Receiver<(Job, Sink)>,
    tell: Told,
) -> Result<JoinHandle<()>, String> {
    let thread = Builder::new().name("chat-engine".to_owned()).stack_size(ENGINE_STACK);
    let run = move || {
        let model = match open_model(&options) {
            Ok(model) => Arc::new(model),
            Err(reason) => return drop(tell.send(Err(reason))),
        };
        let limit = context_limit(&model, &options.engine);
        let context = match open_context(&model, &options.engine, limit) {
            Ok(context) => context,
            Err(reason) => return drop(tell.send(Err(reason))),
        };
        let settings = settings(&options, &model, &context, limit);
        let found = Found { model: Arc::clone(&model), limit: settings.limit };
        if tell.send(Ok(found)).is_ok() {
            Engine::new(&model, context, settings, shared, inbox).run();
        }
    };
    thread.spawn(run).map_err(|e| format!("cannot start a thread: {e}"))
}

fn spawn_preparer(
    name: &str,
    preparer: Preparer,
    requests: Receiver<(Intake, Sink)>,
    hand_on: impl Fn(Job, Sink) + Send + 'static,
) -> Result<JoinHandle<()>, String> {
    let thread = Builder::new().name("chat-prepare".to_owned()).stack_size(PREPARE_STACK);
    let started = thread.spawn(move || prepare::run(&preparer, &requests, hand_on));
    started.map_err(|e| format!("cannot start a thread for `{name}`: {e}"))
}

fn open_model(options: &LocalOptions) -> Result<LlamaModel, String> {
    let path = &options.path;
    if !path.is_file() {
        return Err(format!("there is no file {}", path.display()));
    }
    let params = LlamaModelParams::default().with_n_gpu_layers(options.engine.gpu_layers);
    LlamaModel::load_from_file(backend()?, path, &params).map_err(|_| {
        format!("{} is no GGUF file that llama.cpp can load; its log says why", path.display())
    })
}

/// Tokens of prompt and answer together.
fn context_limit(model: &LlamaModel, engine: &EngineConfig) -> u32 {
    let trained = model.n_ctx_train();
    match engine.context_tokens {
        0 => trained,
        wanted => wanted.min(trained),
    }
}

fn open_context<'m>(
    model: &'m LlamaModel,
    engine: &EngineConfig,
    limit: u32,
) -> Result<LlamaContext<'m>, String> {
    let cells = match engine.cache_tokens {
        0 => limit.saturating_mul(2),
        cells => cells.max(limit),
    };
    let threads = i32::try_from(threads(engine.threads)).unwrap_or(1);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(cells))
        .with_n_batch(engine.batch_tokens)
        .with_n_ubatch(engine.batch_tokens)
        .with_n_seq_max(u32::try_from(engine.parallel).unwrap_or(1))
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        // One pool of cells, so that sequences share beginnings and none has a fixed part.
        .with_kv_unified(true)
        // A window cache would forget what a shared beginning needs.
        .with_swa_full(true)
        .with_no_perf(true);
    model.new_context(backend()?, params).map_err(|_| {
        format!("llama.cpp cannot make a context of {cells} tokens; lower `context_tokens` or `cache_tokens`")
    })
}

fn settings(
    options: &LocalOptions,
    model: &LlamaModel,
    context: &LlamaContext<'_>,
    limit: u32,
) -> Settings {
    let engine = &options.engine;
    let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Settings {
        name: options.name.clone(),
        limit: limit.min(context.n_ctx()),
        parallel: engine.parallel,
        // A small context takes smaller batches than configured, and llama.cpp aborts on larger ones.
        batch: size(engine.batch_tokens.min(context.n_batch())),
        prefill: size(engine.prefill_tokens),
        queue_timeout: Duration::from_millis(engine.queue_timeout_ms),
        reader_timeout: Duration::from_millis(engine.reader_timeout_ms),
        share: !model.is_recurrent() && !model.is_hybrid(),
    }
}

fn preparer(options: &LocalOptions, found: &Found) -> Result<Preparer, String> {
    let model = Arc::clone(&found.model);
    let source =
        options.chat_template.clone().or_else(|| model.chat_template(None).ok()?.to_string().ok());
    let template =
        source.map(|source| ChatTemplate::new(source, special_texts(&model))).transpose()?;
    let longest_token = model.tokens(true).map(|(_, bytes)| bytes.len()).max().unwrap_or(1).max(1);
    let (sampling, name) = (options.engine.sampling.clone(), options.name.clone());
    Ok(Preparer { model, template, sampling, name, limit: found.limit, longest_token })
}

fn special_texts(model: &LlamaModel) -> SpecialTexts {
    let vocab = model.vocab();
    let text = |token: LlamaToken| {
        let bytes = if token.0 < 0 { Vec::new() } else { vocab.token_to_piece(token, true, None) };
        String::from_utf8(bytes).unwrap_or_default()
    };
    let controls = vocab.tokens().filter(|token| vocab.is_control(*token) || vocab.is_eog(*token));
    SpecialTexts {
        bos: text(vocab.bos()),
        eos: text(vocab.eos()),
        controls: controls.map(text).collect(),
    }
}

fn info(options: &LocalOptions, preparer: &Preparer) -> ModelInfo {
    let chat = preparer.template.is_some();
    ModelInfo {
        name: options.name.clone(),
        publisher: options.publisher.clone(),
        version: options.version.clone(),
        context_tokens: preparer.limit,
        chat,
        completions: true,
        tools: chat,
        json_object: chat,
        json_schema: chat,
        images: false,
        audio: false,
        logprobs: true,
        extra_parameters: EXTRA_PARAMETERS.map(str::to_owned).to_vec(),
        parameters: BTreeMap::new(),
        suffix: preparer.fills_gaps(),
    }
}

/// Threads that decode: as configured, else one for each physical core that this process may use. A second thread on a
/// core gains nothing and takes it from others.
fn threads(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let cores: BTreeSet<String> = (0..)
        .map_while(|cpu| {
            std::fs::read_to_string(format!("{TOPOLOGY}/cpu{cpu}/topology/thread_siblings_list"))
                .ok()
        })
        .collect();
    if cores.is_empty() { usable } else { usable.min(cores.len()) }
}
