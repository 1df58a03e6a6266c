//! Builds an ONNX graph operator by operator.
//!
//! Separate so that exporters read like the model they export. Names of values are numbers in the order of making:
//! the same calls give the same bytes.

use prost::Message as _;

use super::ConvertError;
use super::onnx::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
    data_type,
};

/// The operator set of all exports: the first with `LayerNormalization`, understood by every runtime since 2022.
const OPSET: i64 = 17;
/// The file format that belongs to it.
const IR_VERSION: i64 = 8;
/// Said in the file.
const PRODUCER: &str = "koine";

/// A graph in the making.
#[derive(Debug, Default)]
pub(super) struct Graph {
    proto: GraphProto,
    made: usize,
}

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dim {
    /// Any size, called so.
    Any(&'static str),
    /// This size.
    Fixed(usize),
}

impl Graph {
    /// An empty graph called `name`.
    pub(super) fn new(name: &str) -> Self {
        Self { proto: GraphProto { name: Some(name.to_owned()), ..Default::default() }, made: 0 }
    }

    /// Goes on with the graph of an ONNX file that this crate exported.
    pub(super) fn read(file: &[u8]) -> Result<Self, ConvertError> {
        let model = ModelProto::decode(file)
            .map_err(|e| ConvertError::new(format!("not an ONNX file: {e}")))?;
        if model.producer_name.as_deref() != Some(PRODUCER) {
            return Err(ConvertError::new("not an ONNX file of our own making"));
        }
        let proto = model.graph.ok_or_else(|| ConvertError::new("an ONNX file without a graph"))?;
        let made = proto.node.len() + proto.initializer.len();
        Ok(Self { proto, made })
    }

    /// An operator with one output, whose name is answered.
    pub(super) fn op(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let [output] = self.op_many(op_type, inputs, attributes);
        output
    }

    /// An operator with several outputs.
    pub(super) fn op_many<const N: usize>(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> [String; N] {
        self.made += 1;
        let number = self.made;
        let outputs = std::array::from_fn(|i| {
            if i == 0 { format!("v{number}") } else { format!("v{number}_{i}") }
        });
        self.node(op_type, inputs, &outputs, attributes);
        outputs
    }

    /// An operator whose output is a named output of the graph.
    pub(super) fn op_to(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        self.made += 1;
        self.node(op_type, inputs, &[output.to_owned()], attributes);
    }

    fn node(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        outputs: &[String],
        attribute: Vec<AttributeProto>,
    ) {
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: outputs.to_vec(),
            name: Some(format!("n{}_{op_type}", self.made)),
            op_type: Some(op_type.to_owned()),
            attribute,
        });
    }

    /// A constant of floats; no dimensions make it a scalar.
    pub(super) fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.constant(dims, data_type::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant of whole numbers; no dimensions make it a scalar.
    pub(super) fn ints(&mut self, dims: &[usize], values: &[i64]) -> String {
        self.constant(dims, data_type::INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant of small whole numbers.
    pub(super) fn bytes(&mut self, dims: &[usize], values: &[i8]) -> String {
        self.constant(dims, data_type::INT8, values.iter().map(|v| v.to_le_bytes()[0]).collect())
    }

    /// A scalar.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    fn constant(&mut self, dims: &[usize], data_type: i32, raw: Vec<u8>) -> String {
        self.made += 1;
        let name = format!("c{}", self.made);
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|d| as_i64(*d)).collect(),
            data_type: Some(data_type),
            name: Some(name.clone()),
            raw_data: Some(raw),
        });
        name
    }

    /// Declares an input.
    pub(super) fn input(&mut self, name: &str, elem_type: i32, dims: &[Dim]) {
        self.proto.input.push(value_info(name, elem_type, dims));
    }

    /// Declares an output of floats; an output of the same name is replaced.
    pub(super) fn output(&mut self, name: &str, dims: &[Dim]) {
        self.proto.output.retain(|o| o.name.as_deref() != Some(name));
        self.proto.output.push(value_info(name, data_type::FLOAT, dims));
    }

    /// Takes the output `name` out of the graph, with the operator that makes it.
    pub(super) fn remove_output(&mut self, name: &str) {
        self.proto.output.retain(|o| o.name.as_deref() != Some(name));
        self.proto.node.retain(|n| !n.output.iter().any(|o| o == name));
    }

    /// Removes operators and constants whose results nobody uses.
    pub(super) fn prune(&mut self) {
        let mut used: std::collections::BTreeSet<String> =
            self.proto.output.iter().filter_map(|o| o.name.clone()).collect();
        // Operators stand in the order of computation, so one pass from the end finds all that lead to an output.
        for node in self.proto.node.iter().rev() {
            if node.output.iter().any(|o| used.contains(o)) {
                used.extend(node.input.iter().cloned());
            }
        }
        self.proto.node.retain(|n| n.output.iter().any(|o| used.contains(o)));
        self.proto.initializer.retain(|i| i.name.as_ref().is_some_and(|n| used.contains(n)));
    }

    /// Whether there is an output of that name.
    pub(super) fn has_output(&self, name: &str) -> bool {
        self.proto.output.iter().any(|o| o.name.as_deref() == Some(name))
    }

    /// The file.
    pub(super) fn finish(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            producer_name: Some(PRODUCER.to_owned()),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(OPSET),
            }],
        };
        model.encode_to_vec()
    }

    /// L2 normalisation of the rows of `x`, as the graph output `name`. A row of zeros stays one.
    pub(super) fn normalised(&mut self, x: &str, name: &str) {
        let square = self.op("Mul", &[x, x], vec![]);
        let axis = self.ints(&[1], &[1]);
        let sum = self.op("ReduceSum", &[&square, &axis], vec![int("keepdims", 1)]);
        let norm = self.op("Sqrt", &[&sum], vec![]);
        let least = self.float(LEAST_NORM);
        let norm = self.op("Max", &[&norm, &least], vec![]);
        self.op_to("Div", &[x, &norm], name, vec![]);
    }
}

/// Instead of a division by zero; as PyTorch's `normalize` does.
const LEAST_NORM: f32 = 1e-12;

/// A whole number as an attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(attribute_type::INT),
        ..Default::default()
    }
}

/// A list of whole numbers as an attribute.
pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|v| as_i64(*v)).collect();
    AttributeProto {
        name: Some(name.to_owned()),
        ints,
        r#type: Some(attribute_type::INTS),
        ..Default::default()
    }
}

/// A float as an attribute.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        f: Some(value),
        r#type: Some(attribute_type::FLOAT),
        ..Default::default()
    }
}

/// Sizes of things in memory always fit.
pub(super) fn as_i64(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn value_info(name: &str, elem_type: i32, dims: &[Dim]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| match d {
        Dim::Any(name) => DimensionProto { dim_value: None, dim_param: Some((*name).to_owned()) },
        Dim::Fixed(size) => DimensionProto { dim_value: Some(as_i64(*size)), dim_param: None },
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: Some(elem_type), shape });
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_survives_writing_and_reading() {
        let mut graph = Graph::new("g");
        graph.input("x", data_type::FLOAT, &[Dim::Any("batch"), Dim::Fixed(2)]);
        graph.normalised("x", "embedding");
        graph.output("embedding", &[Dim::Any("batch"), Dim::Fixed(2)]);
        let proto = graph.proto.clone();
        let file = graph.finish();
        assert_eq!(Graph::read(&file).unwrap().proto, proto);
    }

    #[test]
    fn pruning_keeps_only_what_leads_to_an_output() {
        let mut graph = Graph::new("g");
        let one = graph.float(1.0);
        let kept = graph.op("Add", &["x", &one], vec![]);
        graph.op_to("Identity", &[&kept], "a", vec![]);
        graph.normalised(&kept, "b");
        graph.output("a", &[]);
        graph.output("b", &[]);
        graph.remove_output("b");
        graph.prune();
        let operators: Vec<_> =
            graph.proto.node.iter().filter_map(|n| n.op_type.as_deref()).collect();
        assert_eq!(operators, ["Add", "Identity"]);
        assert_eq!(graph.proto.initializer.len(), 1);
    }
}
