//! A BERT sentence encoder as an ONNX graph.
//!
//! Separate from the file formats that its weights come in. Sizes are read from the tensors' shapes; only the number of
//! heads and the epsilon cannot be seen there. Outputs: `last_hidden_state`, and `sentence_embedding`, the mean over the
//! tokens of the mask, L2-normalised, as sentence-transformers does for MiniLM and E5. Weights with the tensors `look`, `read`
//! and `bias` are a classifier's: its output is `scores` alone, probabilities that do not exclude each other.

use super::ConvertError;
use super::graph::{Dim, Graph, as_i64, float, int, ints};
use super::onnx::data_type;
use super::quantize::{self, Activation};
use super::weights::Weights;
use crate::catalog::Quantize;

/// Added to the attention of padding: nothing after the softmax, but no infinity for a row of padding alone.
const MASKED: f32 = -1e9;
/// Instead of a division by zero for a text without tokens.
const LEAST_COUNT: f32 = 1e-9;
/// The most layers that are looked for.
const MOST_LAYERS: usize = 128;

/// Of a classifier, `[hidden, scores]`: where in the text each score looks, and what it reads there; and what is added.
const LOOK: &str = "look";
const READ: &str = "read";
const BIAS: &str = "bias";

/// What the shapes do not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    pub(super) attention_heads: usize,
    pub(super) layer_norm_eps: f32,
}

/// The ONNX file of the encoder in `weights`.
pub(super) fn export(
    weights: &dyn Weights,
    config: Config,
    quantize: Quantize,
) -> Result<Vec<u8>, ConvertError> {
    let shape = weights.shape("embeddings.word_embeddings.weight")?;
    let hidden = shape.get(1).copied().unwrap_or(0);
    if config.attention_heads == 0 || hidden == 0 || hidden % config.attention_heads != 0 {
        let heads = config.attention_heads;
        return Err(ConvertError::new(format!(
            "{hidden} dimensions cannot be shared by {heads} heads"
        )));
    }
    let mut encoder = Encoder { graph: Graph::new("encoder"), weights, config, hidden, quantize };
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        encoder.graph.input(name, data_type::INT64, &[Dim::Any("batch"), Dim::Any("sequence")]);
    }
    let frame = encoder.frame();
    let mut x = encoder.embeddings(&frame)?;
    for layer in (0..MOST_LAYERS).map(|l| format!("encoder.layer.{l}")) {
        if weights.shape(&format!("{layer}.output.dense.weight")).is_err() {
            break;
        }
        x = encoder.attention(&layer, &x, &frame)?;
        x = encoder.feed_forward(&layer, &x)?;
    }
    if weights.shape(LOOK).is_ok() {
        encoder.scores(&x, &frame)?;
    } else {
        encoder.outputs(&x, &frame);
    }
    Ok(encoder.graph.finish())
}

struct Encoder<'a> {
    graph: Graph,
    weights: &'a dyn Weights,
    config: Config,
    hidden: usize,
    quantize: Quantize,
}

/// Values that every layer uses.
struct Frame {
    /// Number of tokens, a scalar.
    length: String,
    /// The mask as floats.
    mask: String,
    /// Added to attention scores: 0, or `MASKED` for padding.
    bias: String,
    /// `[batch, sequence, heads, width of a head]`.
    by_head: String,
    /// `[batch, sequence, hidden]`.
    joined: String,
}

impl Encoder<'_> {
    fn frame(&mut self) -> Frame {
        let g = &mut self.graph;
        let shape = g.op("Shape", &["input_ids"], vec![]);
        let (zero, one) = (g.ints(&[1], &[0]), g.ints(&[1], &[1]));
        let batch = g.op("Gather", &[&shape, &zero], vec![int("axis", 0)]);
        let sequence = g.op("Gather", &[&shape, &one], vec![int("axis", 0)]);
        let length = g.op("Squeeze", &[&sequence, &zero], vec![]);
        let mask = g.op("Cast", &["attention_mask"], vec![int("to", i64::from(data_type::FLOAT))]);
        let axes = g.ints(&[2], &[1, 2]);
        let per_head = g.op("Unsqueeze", &[&mask, &axes], vec![]);
        let (kept, masked) = (g.float(1.0), g.float(MASKED));
        let hidden_tokens = g.op("Sub", &[&kept, &per_head], vec![]);
        let bias = g.op("Mul", &[&hidden_tokens, &masked], vec![]);
        let heads = self.config.attention_heads;
        let (count, width) =
            (g.ints(&[1], &[as_i64(heads)]), g.ints(&[1], &[as_i64(self.hidden / heads)]));
        let by_head = g.op("Concat", &[&batch, &sequence, &count, &width], vec![int("axis", 0)]);
        let hidden = g.ints(&[1], &[as_i64(self.hidden)]);
        let joined = g.op("Concat", &[&batch, &sequence, &hidden], vec![int("axis", 0)]);
        Frame { length, mask, bias, by_head, joined }
    }

    fn embeddings(&mut self, frame: &Frame) -> Result<String, ConvertError> {
        let (from, step) = (self.graph.ints(&[], &[0]), self.graph.ints(&[], &[1]));
        let positions = self.graph.op("Range", &[&from, &frame.length, &step], vec![]);
        let words = self.table("embeddings.word_embeddings.weight", "input_ids")?;
        let positions = self.table("embeddings.position_embeddings.weight", &positions)?;
        let types = self.table("embeddings.token_type_embeddings.weight", "token_type_ids")?;
        let sum = self.graph.op("Add", &[&words, &positions], vec![]);
        let sum = self.graph.op("Add", &[&sum, &types], vec![]);
        self.layer_norm("embeddings.LayerNorm", &sum)
    }

    fn attention(&mut self, layer: &str, x: &str, frame: &Frame) -> Result<String, ConvertError> {
        let input = self.linear_input(x);
        let query =
            self.heads(&format!("{layer}.attention.self.query"), &input, &[0, 2, 1, 3], frame)?;
        let key =
            self.heads(&format!("{layer}.attention.self.key"), &input, &[0, 2, 3, 1], frame)?;
        let value =
            self.heads(&format!("{layer}.attention.self.value"), &input, &[0, 2, 1, 3], frame)?;
        let g = &mut self.graph;
        let scores = g.op("MatMul", &[&query, &key], vec![]);
        #[expect(clippy::cast_precision_loss, reason = "a width of a few hundred")]
        let width = (self.hidden / self.config.attention_heads) as f64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounded to the graph's format on purpose"
        )]
        let scale = g.float((1.0 / width.sqrt()) as f32);
        let scores = g.op("Mul", &[&scores, &scale], vec![]);
        let scores = g.op("Add", &[&scores, &frame.bias], vec![]);
        let shares = g.op("Softmax", &[&scores], vec![int("axis", -1)]);
        let mixed = g.op("MatMul", &[&shares, &value], vec![]);
        let mixed = g.op("Transpose", &[&mixed], vec![ints("perm", &[0, 2, 1, 3])]);
        let mixed = g.op("Reshape", &[&mixed, &frame.joined], vec![]);
        let mixed = self.linear_input(&mixed);
        let out = self.linear(&format!("{layer}.attention.output.dense"), &mixed)?;
        let sum = self.graph.op("Add", &[&out, x], vec![]);
        self.layer_norm(&format!("{layer}.attention.output.LayerNorm"), &sum)
    }

    fn heads(
        &mut self,
        name: &str,
        x: &LinearInput,
        order: &[usize],
        frame: &Frame,
    ) -> Result<String, ConvertError> {
        let flat = self.linear(name, x)?;
        let split = self.graph.op("Reshape", &[&flat, &frame.by_head], vec![]);
        Ok(self.graph.op("Transpose", &[&split], vec![ints("perm", order)]))
    }

    fn feed_forward(&mut self, layer: &str, x: &str) -> Result<String, ConvertError> {
        let input = self.linear_input(x);
        let inner = self.linear(&format!("{layer}.intermediate.dense"), &input)?;
        let g = &mut self.graph;
        // GELU with the error function, in the order that ONNX Runtime fuses.
        let root = g.float(std::f32::consts::SQRT_2);
        let (one, half) = (g.float(1.0), g.float(0.5));
        let y = g.op("Div", &[&inner, &root], vec![]);
        let y = g.op("Erf", &[&y], vec![]);
        let y = g.op("Add", &[&y, &one], vec![]);
        let y = g.op("Mul", &[&inner, &y], vec![]);
        let y = g.op("Mul", &[&y, &half], vec![]);
        let input = self.linear_input(&y);
        let out = self.linear(&format!("{layer}.output.dense"), &input)?;
        let sum = self.graph.op("Add", &[&out, x], vec![]);
        self.layer_norm(&format!("{layer}.output.LayerNorm"), &sum)
    }

    fn outputs(&mut self, x: &str, frame: &Frame) {
        let g = &mut self.graph;
        g.op_to("Identity", &[x], "last_hidden_state", vec![]);
        let (last, tokens) = (g.ints(&[1], &[2]), g.ints(&[1], &[1]));
        let mask = g.op("Unsqueeze", &[&frame.mask, &last], vec![]);
        let kept = g.op("Mul", &[x, &mask], vec![]);
        let sum = g.op("ReduceSum", &[&kept, &tokens], vec![int("keepdims", 0)]);
        let count = g.op("ReduceSum", &[&mask, &tokens], vec![int("keepdims", 0)]);
        let least = g.float(LEAST_COUNT);
        let count = g.op("Max", &[&count, &least], vec![]);
        let mean = g.op("Div", &[&sum, &count], vec![]);
        g.normalised(&mean, "sentence_embedding");
        let hidden = Dim::Fixed(self.hidden);
        g.output("last_hidden_state", &[Dim::Any("batch"), Dim::Any("sequence"), hidden]);
        g.output("sentence_embedding", &[Dim::Any("batch"), hidden]);
    }

    /// Each score is a mean over the tokens with weights of its own, so that one sentence of a long text is heard.
    fn scores(&mut self, x: &str, frame: &Frame) -> Result<(), ConvertError> {
        let count = self.weights.shape(BIAS)?.first().copied().unwrap_or(0);
        let [look, read] = [LOOK, READ].map(|name| self.weights.all(name, &[self.hidden, count]));
        let (look, read, bias) = (look?, read?, self.weights.all(BIAS, &[count])?);
        let g = &mut self.graph;
        let [look, read] = [look, read].map(|matrix| {
            let matrix = g.floats(&[self.hidden, count], &matrix);
            g.op("MatMul", &[x, &matrix], vec![])
        });
        let (last, tokens) = (g.ints(&[1], &[2]), g.ints(&[1], &[1]));
        let mask = g.op("Unsqueeze", &[&frame.mask, &last], vec![]);
        let (kept, masked) = (g.float(1.0), g.float(MASKED));
        let padding = g.op("Sub", &[&kept, &mask], vec![]);
        let padding = g.op("Mul", &[&padding, &masked], vec![]);
        let look = g.op("Add", &[&look, &padding], vec![]);
        let look = g.op("Softmax", &[&look], vec![int("axis", 1)]);
        let parts = g.op("Mul", &[&look, &read], vec![]);
        let sum = g.op("ReduceSum", &[&parts, &tokens], vec![int("keepdims", 0)]);
        let bias = g.floats(&[count], &bias);
        let sum = g.op("Add", &[&sum, &bias], vec![]);
        g.op_to("Sigmoid", &[&sum], "scores", vec![]);
        g.output("scores", &[Dim::Any("batch"), Dim::Fixed(count)]);
        Ok(())
    }

    fn layer_norm(&mut self, name: &str, x: &str) -> Result<String, ConvertError> {
        let [weight, bias] = ["weight", "bias"]
            .map(|part| self.weights.all(&format!("{name}.{part}"), &[self.hidden]));
        let weight = self.graph.floats(&[self.hidden], &weight?);
        let bias = self.graph.floats(&[self.hidden], &bias?);
        let attributes = vec![int("axis", -1), float("epsilon", self.config.layer_norm_eps)];
        Ok(self.graph.op("LayerNormalization", &[x, &weight, &bias], attributes))
    }

    fn table(&mut self, name: &str, indices: &str) -> Result<String, ConvertError> {
        match self.quantize {
            Quantize::None => {
                let shape = self.weights.shape(name)?;
                let table = self.weights.all(name, &shape)?;
                let table = self.graph.floats(&shape, &table);
                Ok(self.graph.op("Gather", &[&table, indices], vec![int("axis", 0)]))
            }
            Quantize::Int8 => quantize::gather(&mut self.graph, self.weights, name, indices),
        }
    }

    /// Prepares `x` for one or several linear layers.
    fn linear_input(&mut self, x: &str) -> LinearInput {
        match self.quantize {
            Quantize::None => LinearInput::Floats(x.to_owned()),
            Quantize::Int8 => LinearInput::Bytes(quantize::activation(&mut self.graph, x)),
        }
    }

    fn linear(&mut self, name: &str, x: &LinearInput) -> Result<String, ConvertError> {
        let shape = self.weights.shape(&format!("{name}.weight"))?;
        let [outputs, inputs] = shape[..] else {
            return Err(ConvertError::new(format!(
                "tensor `{name}.weight` is no matrix: {shape:?}"
            )));
        };
        let matrix = self.weights.all(&format!("{name}.weight"), &shape)?;
        let bias = self.weights.all(&format!("{name}.bias"), &[outputs])?;
        let product = match x {
            LinearInput::Floats(x) => {
                let columns =
                    self.graph.floats(&[inputs, outputs], &quantize::transpose(&matrix, inputs));
                self.graph.op("MatMul", &[x, &columns], vec![])
            }
            LinearInput::Bytes(x) => quantize::matmul(&mut self.graph, x, &matrix, inputs),
        };
        let bias = self.graph.floats(&[outputs], &bias);
        Ok(self.graph.op("Add", &[&product, &bias], vec![]))
    }
}

/// What a linear layer multiplies.
enum LinearInput {
    Floats(String),
    Bytes(Activation),
}

#[cfg(test)]
mod tests {
    use super::super::onnx::ModelProto;
    use super::super::weights::{Safetensors, tests::file};
    use super::*;
    use prost::Message as _;

    const CONFIG: Config = Config { attention_heads: 2, layer_norm_eps: 1e-12 };

    fn tiny(more: &[(&str, &[usize])]) -> Safetensors {
        let mut tensors: Vec<_> = more.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect();
        let mut add = |name: &str, shape: &[usize]| tensors.push((name.to_owned(), shape.to_vec()));
        for (table, rows) in [("word", 5), ("position", 4), ("token_type", 2)] {
            add(&format!("embeddings.{table}_embeddings.weight"), &[rows, 4]);
        }
        let mut both = |name: &str, shape: &[usize]| {
            add(&format!("{name}.weight"), shape);
            add(&format!("{name}.bias"), &shape[..1]);
        };
        both("embeddings.LayerNorm", &[4]);
        for layer in ["encoder.layer.0", "encoder.layer.1"] {
            for part in ["query", "key", "value"] {
                both(&format!("{layer}.attention.self.{part}"), &[4, 4]);
            }
            both(&format!("{layer}.attention.output.dense"), &[4, 4]);
            both(&format!("{layer}.attention.output.LayerNorm"), &[4]);
            both(&format!("{layer}.intermediate.dense"), &[6, 4]);
            both(&format!("{layer}.output.dense"), &[4, 6]);
            both(&format!("{layer}.output.LayerNorm"), &[4]);
        }
        Safetensors::new(file(&tensors)).unwrap()
    }

    fn count(file: &[u8], op_type: &str) -> usize {
        let graph = ModelProto::decode(file).unwrap().graph.unwrap();
        graph.node.iter().filter(|n| n.op_type.as_deref() == Some(op_type)).count()
    }

    #[test]
    fn every_layer_is_exported_with_named_inputs_and_outputs() {
        let file = export(&tiny(&[]), CONFIG, Quantize::None).unwrap();
        let graph = ModelProto::decode(&file[..]).unwrap().graph.unwrap();
        let names = |v: &[super::super::onnx::ValueInfoProto]| {
            v.iter().filter_map(|i| i.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&graph.input), ["input_ids", "attention_mask", "token_type_ids"]);
        assert_eq!(names(&graph.output), ["last_hidden_state", "sentence_embedding"]);
        // Six linear layers and two products of attention in each of two layers.
        assert_eq!(count(&file, "MatMul"), 16);
        assert_eq!(count(&file, "LayerNormalization"), 5);
    }

    #[test]
    fn weights_of_a_classifier_make_one_output_of_scores() {
        let heads: [(&str, &[usize]); 3] = [("look", &[4, 3]), ("read", &[4, 3]), ("bias", &[3])];
        let file = export(&tiny(&heads), CONFIG, Quantize::Int8).unwrap();
        let graph = ModelProto::decode(&file[..]).unwrap().graph.unwrap();
        let outputs: Vec<_> = graph.output.iter().filter_map(|o| o.name.as_deref()).collect();
        assert_eq!(outputs, ["scores"]);
        assert_eq!((count(&file, "Sigmoid"), count(&file, "Softmax")), (1, 3));
        let wrong: [(&str, &[usize]); 3] = [("look", &[4, 2]), ("read", &[4, 3]), ("bias", &[3])];
        let error = export(&tiny(&wrong), CONFIG, Quantize::None).unwrap_err().to_string();
        assert!(error.contains("`look`"), "{error}");
    }

    #[test]
    fn in_8_bits_an_input_is_quantised_once_for_query_key_and_value() {
        let file = export(&tiny(&[]), CONFIG, Quantize::Int8).unwrap();
        assert_eq!(count(&file, "MatMulInteger"), 12);
        assert_eq!(count(&file, "DynamicQuantizeLinear"), 8);
        assert_eq!(count(&file, "MatMul"), 4);
    }

    #[test]
    fn two_exports_are_equal_byte_for_byte() {
        for quantize in [Quantize::None, Quantize::Int8] {
            assert_eq!(
                export(&tiny(&[]), CONFIG, quantize).unwrap(),
                export(&tiny(&[]), CONFIG, quantize).unwrap()
            );
        }
    }

    #[test]
    fn heads_that_do_not_divide_the_width_are_refused() {
        let config = Config { attention_heads: 3, ..CONFIG };
        assert!(
            export(&tiny(&[]), config, Quantize::None).unwrap_err().to_string().contains("3 heads")
        );
    }
}
