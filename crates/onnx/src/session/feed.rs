//! How items become the inputs of a graph.
//!
//! Separate from running it: this is where the names, types and shapes that exporters choose are understood, once, when a model
//! is loaded. What is not understood is refused there, so that no request meets it.

use super::{SessionOptions, run_failed};
use crate::encoder::Item;
use crate::error::OnnxError;
use ort::session::SessionInputValue;
use ort::value::{Tensor, TensorElementType, ValueType};

/// Length of the trial input of a text model: a begin and an end.
const TRIAL_TOKENS: usize = 2;

/// What the graph takes.
pub(super) enum Feed {
    Text(TextFeed),
    Tensor { name: String, shape: Vec<usize> },
}

pub(super) struct TextFeed {
    inputs: Vec<TextInput>,
    pad_id: u32,
    /// The graph wants every text padded to this length.
    fixed: Option<usize>,
}

pub(super) struct TextInput {
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

/// What a session takes, for checking items before they are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Token ids.
    Tokens,
    /// Tensors of this many numbers.
    Tensor(usize),
}

impl Accepts {
    /// Whether `item` is of this kind and size.
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

/// How the graph is fed, and whether it takes one item at a time.
pub(super) fn understand(
    session: &ort::session::Session,
    options: &SessionOptions,
) -> Result<(Feed, bool), String> {
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

/// A graph's inputs by name.
pub(super) type Inputs = Vec<(String, SessionInputValue<'static>)>;

impl Feed {
    /// What items must be.
    pub(super) fn accepts(&self) -> Accepts {
        match self {
            Self::Text(_) => Accepts::Tokens,
            Self::Tensor { shape, .. } => Accepts::Tensor(shape.iter().product()),
        }
    }

    /// The smallest item there is.
    pub(super) fn trial(&self) -> Item {
        match self {
            Self::Text(text) => Item::Tokens(vec![text.pad_id; TRIAL_TOKENS]),
            Self::Tensor { shape, .. } => Item::Tensor(vec![0.0; shape.iter().product()]),
        }
    }

    /// The graph's inputs for `items`, and how many tokens of each row are real.
    pub(super) fn tensors(&self, items: &[Item]) -> Result<(Inputs, Vec<usize>), OnnxError> {
        let accepts = self.accepts();
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
