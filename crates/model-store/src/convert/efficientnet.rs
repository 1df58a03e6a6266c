//! EfficientNet-Lite as an ONNX graph.
//!
//! Separate from the checkpoint's format. Widths, depths and kernel sizes are read from the tensors; strides are those of
//! the architecture (EfficientNet-B0 and its Lite versions share them). Batch normalisation is folded into the
//! convolutions. Outputs: `logits` of 1000 ImageNet classes, and `embedding`, the pooled features, L2-normalised.

use super::ConvertError;
use super::checkpoint::{Checkpoint, Tensor};
use super::graph::{Dim, Graph, int, ints};
use super::onnx::data_type;

/// Epsilon of the batch normalisation, by the architecture.
const EPSILON: f32 = 1e-3;
/// Stride of the first block of each of the seven stages; all others have 1.
const STAGE_STRIDES: [usize; 7] = [1, 2, 2, 2, 1, 2, 1];
/// The Lite versions cut activations off here.
const RELU_LIMIT: f32 = 6.0;

/// The ONNX file of the network for pictures of `image_size` in height and width.
pub(super) fn export(weights: &Checkpoint, image_size: usize) -> Result<Vec<u8>, ConvertError> {
    let mut graph = Graph::new("efficientnet_lite");
    let picture =
        [Dim::Any("batch"), Dim::Fixed(3), Dim::Fixed(image_size), Dim::Fixed(image_size)];
    graph.input("pixel_values", data_type::FLOAT, &picture);
    let limits = [graph.float(0.0), graph.float(RELU_LIMIT)];
    let mut network = Network { graph, weights, limits };
    let stem = Layer { conv: "_conv_stem", norm: "_bn0", stride: 2, grouped: false, bounded: true };
    let mut x = network.convolution(
        &stem,
        &Value { name: "pixel_values".to_owned(), size: image_size, channels: 3 },
    )?;
    for (block, stride) in network.blocks()? {
        x = network.block(&block, stride, &x)?;
    }
    let head = Layer { conv: "_conv_head", norm: "_bn1", stride: 1, grouped: false, bounded: true };
    let x = network.convolution(&head, &x)?;
    network.outputs(&x)?;
    Ok(network.graph.finish())
}

struct Network<'a> {
    graph: Graph,
    weights: &'a Checkpoint,
    /// The constants 0 and 6.
    limits: [String; 2],
}

/// A picture or feature map in the graph.
#[derive(Debug, Clone)]
struct Value {
    name: String,
    /// Height and width.
    size: usize,
    channels: usize,
}

/// A convolution with its batch normalisation.
struct Layer<'a> {
    conv: &'a str,
    norm: &'a str,
    stride: usize,
    /// One filter for each channel.
    grouped: bool,
    /// Followed by the activation.
    bounded: bool,
}

impl Network<'_> {
    fn tensor(&self, name: &str) -> Result<&Tensor, ConvertError> {
        self.weights
            .get(name)
            .ok_or_else(|| ConvertError::new(format!("there is no tensor `{name}`")))
    }

    fn vector(&self, name: &str, length: usize) -> Result<&[f32], ConvertError> {
        let found = self.tensor(name)?;
        if found.data.len() != length {
            return Err(ConvertError::new(format!(
                "tensor `{name}` has {} numbers, not {length}",
                found.data.len()
            )));
        }
        Ok(&found.data)
    }

    /// Names of the blocks with their strides: a new stage begins where the number of channels changes.
    fn blocks(&self) -> Result<Vec<(String, usize)>, ConvertError> {
        let (mut blocks, mut strides, mut before) = (vec![], STAGE_STRIDES.iter(), 0);
        while let Some(norm) = self.weights.get(&format!("_blocks.{}._bn2.weight", blocks.len())) {
            let channels = norm.data.len();
            let begins = channels != before;
            let stride = if begins { strides.next().copied() } else { Some(1) };
            let stride = stride
                .ok_or_else(|| ConvertError::new("more than seven stages: no EfficientNet-Lite"))?;
            blocks.push((format!("_blocks.{}", blocks.len()), stride));
            before = channels;
        }
        if strides.next().is_some() {
            return Err(ConvertError::new("fewer than seven stages: no EfficientNet-Lite"));
        }
        Ok(blocks)
    }

    /// Widen, filter each channel, narrow, and add the input where the shape allows.
    fn block(&mut self, name: &str, stride: usize, x: &Value) -> Result<Value, ConvertError> {
        let part = |part: &str| format!("{name}.{part}");
        let mut y = x.clone();
        if self.weights.contains_key(&part("_expand_conv.weight")) {
            let (conv, norm) = (part("_expand_conv"), part("_bn0"));
            y = self.convolution(
                &Layer { conv: &conv, norm: &norm, stride: 1, grouped: false, bounded: true },
                &y,
            )?;
        }
        let (conv, norm) = (part("_depthwise_conv"), part("_bn1"));
        y = self.convolution(
            &Layer { conv: &conv, norm: &norm, stride, grouped: true, bounded: true },
            &y,
        )?;
        let (conv, norm) = (part("_project_conv"), part("_bn2"));
        y = self.convolution(
            &Layer { conv: &conv, norm: &norm, stride: 1, grouped: false, bounded: false },
            &y,
        )?;
        if stride == 1 && y.channels == x.channels {
            y.name = self.graph.op("Add", &[&y.name, &x.name], vec![]);
        }
        Ok(y)
    }

    fn convolution(&mut self, layer: &Layer<'_>, x: &Value) -> Result<Value, ConvertError> {
        let name = format!("{}.weight", layer.conv);
        let filters = self.tensor(&name)?;
        let [channels, inputs, kernel, width] = filters.shape[..] else {
            return Err(ConvertError::new(format!(
                "tensor `{name}` is no convolution: {:?}",
                filters.shape
            )));
        };
        let groups = if layer.grouped { x.channels } else { 1 };
        if kernel == 0 || kernel != width || inputs.checked_mul(groups) != Some(x.channels) {
            return Err(ConvertError::new(format!(
                "tensor `{name}` does not fit: {:?}",
                filters.shape
            )));
        }
        let norm = |part: &str| self.vector(&format!("{}.{part}", layer.norm), channels);
        let (gain, shift) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        let gain: Vec<f32> =
            gain.iter().zip(variance).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
        let shift: Vec<f32> =
            shift.iter().zip(mean).zip(&gain).map(|((s, m), g)| s - m * g).collect();
        let filter = filters.data.len() / channels.max(1);
        let filters_of = filters.data.chunks(filter.max(1)).zip(&gain);
        let folded: Vec<f32> =
            filters_of.flat_map(|(filter, g)| filter.iter().map(move |w| w * g)).collect();
        let (size, before, after) = padding(x.size, kernel, layer.stride);
        let weights = self.graph.floats(&[channels, inputs, kernel, kernel], &folded);
        let bias = self.graph.floats(&[channels], &shift);
        let attributes = vec![
            ints("kernel_shape", &[kernel, kernel]),
            ints("strides", &[layer.stride, layer.stride]),
            ints("pads", &[before, before, after, after]),
            int("group", super::graph::as_i64(groups)),
        ];
        let mut name = self.graph.op("Conv", &[&x.name, &weights, &bias], attributes);
        if layer.bounded {
            let [low, high] = &self.limits;
            name = self.graph.op("Clip", &[&name, low, high], vec![]);
        }
        Ok(Value { name, size, channels })
    }

    fn outputs(&mut self, x: &Value) -> Result<(), ConvertError> {
        let weights = self.tensor("_fc.weight")?.clone();
        let [classes, features] = weights.shape[..] else {
            return Err(ConvertError::new(format!(
                "tensor `_fc.weight` is no matrix: {:?}",
                weights.shape
            )));
        };
        if features != x.channels {
            return Err(ConvertError::new(format!(
                "tensor `_fc.weight` does not fit: {:?}",
                weights.shape
            )));
        }
        let bias = self.vector("_fc.bias", classes)?.to_vec();
        let g = &mut self.graph;
        let pooled = g.op("GlobalAveragePool", &[&x.name], vec![]);
        let pooled = g.op("Flatten", &[&pooled], vec![]);
        let (weights, bias) =
            (g.floats(&[classes, features], &weights.data), g.floats(&[classes], &bias));
        g.op_to("Gemm", &[&pooled, &weights, &bias], "logits", vec![int("transB", 1)]);
        g.normalised(&pooled, "embedding");
        g.output("logits", &[Dim::Any("batch"), Dim::Fixed(classes)]);
        g.output("embedding", &[Dim::Any("batch"), Dim::Fixed(features)]);
        Ok(())
    }
}

/// TensorFlow's `SAME` padding: the size afterwards, and the pixels added before and after.
fn padding(size: usize, kernel: usize, stride: usize) -> (usize, usize, usize) {
    let after = size.div_ceil(stride);
    let added = (after.saturating_sub(1) * stride + kernel).saturating_sub(size);
    (after, added / 2, added - added / 2)
}

#[cfg(test)]
mod tests {
    use super::super::onnx::ModelProto;
    use super::*;
    use prost::Message as _;

    /// Seven stages of one block, the last with a second one; channels 2 to 8.
    fn tiny() -> Checkpoint {
        let mut weights = Checkpoint::new();
        let mut add = |name: String, shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let data = (0..count).map(|i| 0.5 + (i % 7) as f32 / 8.0).collect();
            weights.insert(name, Tensor { shape: shape.to_vec(), data });
        };
        let mut layer = |conv: &str, norm: &str, shape: [usize; 4]| {
            add(format!("{conv}.weight"), &shape);
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(format!("{norm}.{part}"), &shape[..1]);
            }
        };
        layer("_conv_stem", "_bn0", [2, 3, 3, 3]);
        let mut before = 2;
        for (i, channels) in [3, 2, 4, 5, 6, 7, 8, 8].into_iter().enumerate() {
            let name = format!("_blocks.{i}");
            layer(&format!("{name}._depthwise_conv"), &format!("{name}._bn1"), [before, 1, 3, 3]);
            layer(
                &format!("{name}._project_conv"),
                &format!("{name}._bn2"),
                [channels, before, 1, 1],
            );
            before = channels;
        }
        layer("_conv_head", "_bn1", [9, 8, 1, 1]);
        add("_fc.weight".to_owned(), &[10, 9]);
        add("_fc.bias".to_owned(), &[10]);
        weights
    }

    #[test]
    fn strides_and_skipped_connections_follow_the_stages() {
        let file = export(&tiny(), 32).unwrap();
        let graph = ModelProto::decode(&file[..]).unwrap().graph.unwrap();
        let of =
            |op: &'static str| graph.node.iter().filter(move |n| n.op_type.as_deref() == Some(op));
        let strided = of("Conv").filter(|n| {
            n.attribute.iter().any(|a| a.name.as_deref() == Some("strides") && a.ints == [2, 2])
        });
        assert_eq!(strided.count(), 5, "the stem and four stages halve the picture");
        assert_eq!(of("Add").count(), 1, "only the second block of a stage adds its input");
        assert_eq!(file, export(&tiny(), 32).unwrap(), "two exports are equal");
    }

    #[test]
    fn another_network_is_refused() {
        let mut weights = tiny();
        weights.retain(|name, _| !name.starts_with("_blocks.6") && !name.starts_with("_blocks.7"));
        assert!(export(&weights, 32).unwrap_err().to_string().contains("fewer than seven"));
        let mut weights = tiny();
        weights.remove("_blocks.3._bn1.running_var");
        assert!(
            export(&weights, 32).unwrap_err().to_string().contains("_blocks.3._bn1.running_var")
        );
    }

    #[test]
    fn padding_keeps_the_size_and_puts_the_odd_pixel_last() {
        assert_eq!(padding(224, 3, 2), (112, 0, 1));
        assert_eq!(padding(112, 3, 1), (112, 1, 1));
        assert_eq!(padding(56, 5, 2), (28, 1, 2));
    }
}
