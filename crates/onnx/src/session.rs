//! One ONNX model in memory: items in, rows out, blocking.
//!
//! Where ONNX Runtime is called. Separate from `batch.rs`, which decides when and with what. A session needs exclusive access
//! to run, so it lives on one thread; its own thread pool uses the other cores.

use crate::encoder::{Item, RowShape};
use crate::error::OnnxError;
use crate::runtime::Runtime;
use ort::ep::{CPU, ExecutionProviderDispatch};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, SessionInputValue, SessionOutputs};
use ort::value::{Tensor, TensorElementType, ValueType};
use std::fmt;
use std::path::{Path, PathBuf};

/// Names that exporters give to the output one wants, best first.
const USUAL_OUTPUTS: [&str; 6] = [
    "sentence_embedding",
    "text_embeds",
    "image_embeds",
    "embedding",
    "logits",
    "last_hidden_state",
];
/// Length of the trial input of a text model: a begin and an end.
const TRIAL_TOKENS: usize = 2;

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU; needs the cargo feature `cuda` and a library built for it.
    Cuda,
}

/// How to load a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that compute; 0 is half of the cores, at least one: the other half is for generation and serving.
    pub threads: usize,
    /// Outputs that make a row, joined in this order; empty is the one with a usual name, else the first.
    pub outputs: Vec<String>,
    /// Id that fills up shorter texts of a batch; of no matter where padding is masked.
    pub pad_id: u32,
    /// Dimensions of one tensor item, for graphs that leave them open; empty takes the graph's.
    pub item_shape: Vec<usize>,
    /// Where to run.
    pub device: Device,
}

/// A loaded model.
pub struct Session {
    inner: ort::session::Session,
    path: PathBuf,
    feed: Feed,
    outputs: Vec<String>,
    rows: RowShape,
    /// The graph takes one item at a time.
    single: bool,
}

/// What the graph takes.
enum Feed {
    Text(TextFeed),
    Tensor { name: String, shape: Vec<usize> },
}

struct TextFeed {
    inputs: Vec<TextInput>,
    pad_id: u32,
    /// The graph wants every text padded to this length.
    fixed: Option<usize>,
}

struct TextInput {
    name: String,
    part: TextPart,
    /// 64-bit integers; else 32-bit.
    wide: bool,
}

#[derive(Clone, Copy)]
enum TextPart {
    Ids,
    Mask,
    Types,
}

impl Session {
    /// Loads `model` and runs it once, so that a file that cannot work fails here. Blocks for up to a second.
    ///
    /// # Errors
    /// When the file is not a model, has inputs that are not understood, or fails its trial run.
    pub fn load(
        runtime: &Runtime,
        model: &Path,
        options: &SessionOptions,
    ) -> Result<Self, OnnxError> {
        let failed = |reason: String| OnnxError::Model { path: model.to_owned(), reason };
        let mut builder = builder(runtime, options).map_err(failed)?;
        let inner = builder.commit_from_file(model).map_err(|error| failed(error.to_string()))?;
        let (feed, single) = feed(&inner, options).map_err(failed)?;
        let outputs = outputs(&inner, &options.outputs).map_err(failed)?;
        let rows = RowShape { width: 0, per_token: false };
        let path = model.to_owned();
        let mut session = Self { inner, path, feed, outputs, rows, single };
        session.rows = session.try_out().map_err(|error| failed(error.to_string()))?;
        Ok(session)
    }

    /// The shape of every row.
    #[must_use]
    pub const fn rows(&self) -> RowShape {
        self.rows
    }

    /// Dimensions of one tensor item; none for a model that takes tokens.
    #[must_use]
    pub fn item_shape(&self) -> Option<&[usize]> {
        match &self.feed {
            Feed::Text(_) => None,
            Feed::Tensor { shape, .. } => Some(shape),
        }
    }

    /// Whether the model can take `item`.
    ///
    /// # Errors
    /// `WrongItem` when it cannot.
    pub fn check(&self, item: &Item) -> Result<(), OnnxError> {
        Accepts::of(&self.feed).check(item)
    }

    /// Runs `items` as one batch: one row each, in their order. Blocks.
    ///
    /// # Errors
    /// When an item does not fit the model, or the model fails.
    pub fn run(&mut self, items: &[Item]) -> Result<Vec<Vec<f32>>, OnnxError> {
        if self.single && items.len() > 1 {
            let mut rows = Vec::with_capacity(items.len());
            for item in items {
                rows.append(&mut self.run(std::slice::from_ref(item))?);
            }
            return Ok(rows);
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let (inputs, lengths) = self.feed.tensors(items)?;
        let select = self.outputs.iter().fold(OutputSelector::no_default(), OutputSelector::with);
        let options = RunOptions::new().map_err(run_failed)?.with_outputs(select);
        let outputs = self.inner.run_with_options(inputs, &options).map_err(run_failed)?;
        collect(&outputs, &self.outputs, &lengths, self.rows.per_token)
    }

    pub(crate) fn accepts(&self) -> Accepts {
        Accepts::of(&self.feed)
    }

    /// Runs the smallest possible item to learn the shape of the rows.
    fn try_out(&mut self) -> Result<RowShape, OnnxError> {
        let item = match &self.feed {
            Feed::Text(text) => Item::Tokens(vec![text.pad_id; TRIAL_TOKENS]),
            Feed::Tensor { shape, .. } => Item::Tensor(vec![0.0; shape.iter().product()]),
        };
        let (inputs, _) = self.feed.tensors(std::slice::from_ref(&item))?;
        let outputs = self.inner.run(inputs).map_err(run_failed)?;
        let text = matches!(item, Item::Tokens(_));
        let mut shape: Option<RowShape> = None;
        for name in &self.outputs {
            let (_, dims) = floats(&outputs, name)?;
            let next = row_shape(&dims, text);
            shape = Some(match shape {
                None => next,
                Some(before) if !before.per_token && !next.per_token => {
                    RowShape { width: before.width + next.width, per_token: false }
                }
                Some(_) => {
                    let reason =
                        format!("output `{name}` has a vector per token and cannot be joined");
                    return Err(OnnxError::Run(reason));
                }
            });
        }
        shape.ok_or_else(|| OnnxError::Run("the model has no output".to_owned()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, outputs, rows, .. } = self;
        f.debug_struct("Session")
            .field("path", path)
            .field("outputs", outputs)
            .field("rows", rows)
            .finish_non_exhaustive()
    }
}

/// What a session takes, for checking items before they are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Token ids.
    Tokens,
    /// Tensors of this many numbers.
    Tensor(usize),
}

impl Accepts {
    fn of(feed: &Feed) -> Self {
        match feed {
            Feed::Text(_) => Self::Tokens,
            Feed::Tensor { shape, .. } => Self::Tensor(shape.iter().product()),
        }
    }

    pub(crate) fn check(self, item: &Item) -> Result<(), OnnxError> {
        let problem = match (self, item) {
            (Self::Tokens, Item::Tokens(ids)) if ids.is_empty() => {
                "a text without tokens".to_owned()
            }
            (Self::Tokens, Item::Tokens(_)) => return Ok(()),
            (Self::Tensor(size), Item::Tensor(values)) if values.len() == size => return Ok(()),
            (Self::Tensor(size), Item::Tensor(values)) => {
                format!("a tensor of {} numbers where {size} are wanted", values.len())
            }
            (Self::Tokens, Item::Tensor(_)) => "a tensor where tokens are wanted".to_owned(),
            (Self::Tensor(_), Item::Tokens(_)) => "tokens where a tensor is wanted".to_owned(),
        };
        Err(OnnxError::WrongItem(problem))
    }
}

fn run_failed(error: impl fmt::Display) -> OnnxError {
    OnnxError::Run(error.to_string())
}

fn builder(runtime: &Runtime, options: &SessionOptions) -> Result<SessionBuilder, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { (cores / 2).max(1) } else { options.threads };
    // `map_err` each time: these errors carry the builder, which cannot leave this thread.
    ort::session::Session::builder(runtime.environment())
        .map_err(|error| error.to_string())?
        .with_optimization_level(GraphOptimizationLevel::Level3)
        .map_err(|error| error.to_string())?
        .with_intra_threads(threads)
        .map_err(|error| error.to_string())?
        // Idle threads that spin take cores from generation, which shares them.
        .with_intra_op_spinning(false)
        .map_err(|error| error.to_string())?
        // A plan per input shape is kept for ever, and texts have hundreds of shapes.
        .with_memory_pattern(false)
        .map_err(|error| error.to_string())?
        .with_execution_providers(providers(options.device)?)
        .map_err(|error| error.to_string())
}

fn providers(device: Device) -> Result<Vec<ExecutionProviderDispatch>, String> {
    // Without an arena memory goes back after each run; with one it stays at the largest batch ever seen.
    let cpu = CPU::default().with_arena_allocator(false).build();
    match device {
        Device::Cpu => Ok(vec![cpu]),
        #[cfg(feature = "cuda")]
        Device::Cuda => Ok(vec![ort::ep::CUDA::default().build().error_on_failure(), cpu]),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => {
            Err("this build has no `cuda` feature; build with it or use the processor".to_owned())
        }
    }
}

/// How the graph is fed, and whether it takes one item at a time.
fn feed(session: &ort::session::Session, options: &SessionOptions) -> Result<(Feed, bool), String> {
    let mut texts = Vec::new();
    let mut fixed = None;
    let mut tensor = None;
    let mut single = false;
    for input in session.inputs() {
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(format!("input `{}` is not a tensor", input.name()));
        };
        let dims: Vec<i64> = shape.iter().copied().collect();
        match dims.first() {
            Some(1) => single = true,
            Some(-1) => {}
            _ => {
                return Err(format!(
                    "input `{}` has the shape {dims:?}: its first dimension must be open or 1",
                    input.name()
                ));
            }
        }
        let part = match input.name() {
            "input_ids" => TextPart::Ids,
            "attention_mask" => TextPart::Mask,
            "token_type_ids" => TextPart::Types,
            name if *ty == TensorElementType::Float32 && tensor.is_none() => {
                tensor = Some(Feed::Tensor {
                    name: name.to_owned(),
                    shape: item_shape(&dims, options)?,
                });
                continue;
            }
            name => return Err(format!("input `{name}` of type {ty} is not understood")),
        };
        fixed = dims.get(1).and_then(|&d| usize::try_from(d).ok());
        let wide = *ty == TensorElementType::Int64;
        if !wide && *ty != TensorElementType::Int32 {
            return Err(format!("input `{}` is of type {ty}, not of integers", input.name()));
        }
        texts.push(TextInput { name: input.name().to_owned(), part, wide });
    }
    match (tensor, texts.is_empty()) {
        (Some(tensor), true) => Ok((tensor, single)),
        (None, false) => {
            Ok((Feed::Text(TextFeed { inputs: texts, pad_id: options.pad_id, fixed }), single))
        }
        (None, true) => Err("the model has no input".to_owned()),
        (Some(_), false) => {
            Err("the model wants tokens and a tensor at once; use its separate halves".to_owned())
        }
    }
}

fn item_shape(dims: &[i64], options: &SessionOptions) -> Result<Vec<usize>, String> {
    let rest = dims.get(1..).unwrap_or_default();
    if !options.item_shape.is_empty() {
        let fits = rest.len() == options.item_shape.len()
            && rest
                .iter()
                .zip(&options.item_shape)
                .all(|(&d, &s)| d < 0 || usize::try_from(d) == Ok(s));
        return if fits {
            Ok(options.item_shape.clone())
        } else {
            Err(format!("the model takes items of {rest:?}, not of {:?}", options.item_shape))
        };
    }
    rest.iter()
        .map(|&d| {
            usize::try_from(d)
                .map_err(|_| format!("the model leaves the size of its items open ({rest:?})"))
        })
        .collect()
}

fn outputs(session: &ort::session::Session, wanted: &[String]) -> Result<Vec<String>, String> {
    let names: Vec<&str> = session.outputs().iter().map(ort::value::Outlet::name).collect();
    if let Some(missing) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!(
            "the model has no output `{missing}`; it has `{}`",
            names.join("`, `")
        ));
    }
    if !wanted.is_empty() {
        return Ok(wanted.to_vec());
    }
    let usual = USUAL_OUTPUTS.into_iter().find(|name| names.contains(name));
    let first = usual.or_else(|| names.first().copied());
    first.map(|name| vec![name.to_owned()]).ok_or_else(|| "the model has no output".to_owned())
}

type Inputs = Vec<(String, SessionInputValue<'static>)>;

impl Feed {
    /// The graph's inputs for `items`, and how many tokens of each row are real.
    fn tensors(&self, items: &[Item]) -> Result<(Inputs, Vec<usize>), OnnxError> {
        let accepts = Accepts::of(self);
        items.iter().try_for_each(|item| accepts.check(item))?;
        match self {
            Self::Tensor { name, shape } => {
                let mut dims = vec![items.len()];
                dims.extend(shape);
                let values = items.iter().flat_map(tensor_of).copied().collect::<Vec<f32>>();
                let tensor = Tensor::from_array((dims, values)).map_err(run_failed)?;
                Ok((vec![(name.clone(), tensor.into())], vec![1; items.len()]))
            }
            Self::Text(text) => {
                let texts: Vec<&[u32]> = items.iter().map(tokens_of).collect();
                let lengths = texts.iter().map(|ids| ids.len()).collect::<Vec<_>>();
                Ok((text.tensors(&texts)?, lengths))
            }
        }
    }
}

fn tensor_of(item: &Item) -> &[f32] {
    match item {
        Item::Tensor(values) => values,
        Item::Tokens(_) => &[],
    }
}

fn tokens_of(item: &Item) -> &[u32] {
    match item {
        Item::Tokens(ids) => ids,
        Item::Tensor(_) => &[],
    }
}

impl TextFeed {
    fn tensors(&self, texts: &[&[u32]]) -> Result<Inputs, OnnxError> {
        let longest = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let length = self.fixed.unwrap_or(longest);
        if longest > length {
            return Err(OnnxError::WrongItem(format!(
                "a text of {longest} tokens where {length} fit"
            )));
        }
        let dims = [texts.len(), length];
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let mut values: Vec<i64> = Vec::with_capacity(texts.len() * length);
            for ids in texts {
                let end = values.len() + length;
                match input.part {
                    TextPart::Ids => values.extend(ids.iter().map(|&id| i64::from(id))),
                    TextPart::Mask => values.resize(values.len() + ids.len(), 1),
                    TextPart::Types => {}
                }
                let fill =
                    if matches!(input.part, TextPart::Ids) { i64::from(self.pad_id) } else { 0 };
                values.resize(end, fill);
            }
            let value: SessionInputValue<'static> = if input.wide {
                Tensor::from_array((dims, values)).map_err(run_failed)?.into()
            } else {
                // Token ids fit: vocabularies are far smaller than 2^31.
                let narrow =
                    values.into_iter().map(|v| i32::try_from(v).unwrap_or(0)).collect::<Vec<_>>();
                Tensor::from_array((dims, narrow)).map_err(run_failed)?.into()
            };
            inputs.push((input.name.clone(), value));
        }
        Ok(inputs)
    }
}

fn floats<'a>(
    outputs: &'a SessionOutputs<'_>,
    name: &str,
) -> Result<(&'a [f32], Vec<usize>), OnnxError> {
    let value = outputs.get(name).ok_or_else(|| OnnxError::Run(format!("no output `{name}`")))?;
    let (shape, data) = value.try_extract_tensor::<f32>().map_err(run_failed)?;
    Ok((data, shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect()))
}

fn row_shape(dims: &[usize], text: bool) -> RowShape {
    match dims {
        [_, _, width] if text => RowShape { width: *width, per_token: true },
        dims => RowShape { width: dims.iter().skip(1).product(), per_token: false },
    }
}

/// Rows out of the outputs: joined where there are several, padding left out where there is a vector per token.
fn collect(
    outputs: &SessionOutputs<'_>,
    names: &[String],
    lengths: &[usize],
    per_token: bool,
) -> Result<Vec<Vec<f32>>, OnnxError> {
    let mut rows = vec![Vec::new(); lengths.len()];
    for name in names {
        let (data, dims) = floats(outputs, name)?;
        let size = data.len() / lengths.len();
        let width = dims.last().copied().unwrap_or(1);
        for ((row, &length), chunk) in rows.iter_mut().zip(lengths).zip(data.chunks(size.max(1))) {
            let real = if per_token { length * width } else { size };
            row.extend_from_slice(chunk.get(..real).unwrap_or(chunk));
        }
    }
    Ok(rows)
}
