//! An image classifier that answers in the vector space of a text encoder.
//!
//! Separate from the classifier's export: it takes any ONNX of ours with `logits` of the 1000 ImageNet classes. The vector
//! of a picture is the mean of the ten likeliest classes' vectors, weighted by their probability and L2-normalised
//! (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2013). A class's vector is
//! that of the sentence "a photo of a ..." by all-MiniLM-L6-v2; `data/README.md` says how the table was made.

use super::ConvertError;
use super::graph::{Dim, Graph, int};

/// Rows of a scale (four bytes) and 384 numbers in 8 bits.
const CLASS_VECTORS: &[u8] = include_bytes!("../../data/imagenet-minilm.bin");
/// Classes of ImageNet-1k.
const CLASSES: usize = 1000;
/// Dimensions of the text encoder.
const DIMENSIONS: usize = 384;
/// Classes that count; more add noise, fewer lose pictures that lie between classes.
const LIKELIEST: i64 = 10;

/// The ONNX file: outputs `logits` as before, and `embedding` in the space of the text encoder.
pub(super) fn export(classifier: &[u8]) -> Result<Vec<u8>, ConvertError> {
    let mut graph = Graph::read(classifier)?;
    if !graph.has_output("logits") {
        return Err(ConvertError::new("the classifier has no output `logits`"));
    }
    graph.remove_output("embedding");
    graph.prune();
    let shares = graph.op("Softmax", &["logits"], vec![int("axis", 1)]);
    let count = graph.ints(&[1], &[LIKELIEST]);
    let [values, classes] = graph.op_many("TopK", &[&shares, &count], vec![int("axis", 1)]);
    let table = graph.floats(&[CLASSES, DIMENSIONS], &class_vectors());
    let vectors = graph.op("Gather", &[&table, &classes], vec![int("axis", 0)]);
    let (last, middle) = (graph.ints(&[1], &[2]), graph.ints(&[1], &[1]));
    let values = graph.op("Unsqueeze", &[&values, &last], vec![]);
    let weighted = graph.op("Mul", &[&vectors, &values], vec![]);
    let sum = graph.op("ReduceSum", &[&weighted, &middle], vec![int("keepdims", 0)]);
    graph.normalised(&sum, "embedding");
    graph.output("embedding", &[Dim::Any("batch"), Dim::Fixed(DIMENSIONS)]);
    Ok(graph.finish())
}

fn class_vectors() -> Vec<f32> {
    let rows = CLASS_VECTORS.chunks_exact(size_of::<f32>() + DIMENSIONS);
    rows.flat_map(|row| {
        let scale = f32::from_le_bytes([row[0], row[1], row[2], row[3]]);
        row[size_of::<f32>()..].iter().map(move |v| f32::from(i8::from_le_bytes([*v])) * scale)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::onnx::{ModelProto, data_type};
    use super::*;
    use prost::Message as _;

    #[test]
    fn the_table_has_a_unit_vector_for_every_class() {
        let vectors = class_vectors();
        assert_eq!(vectors.len(), CLASSES * DIMENSIONS);
        for (class, vector) in vectors.chunks(DIMENSIONS).enumerate() {
            let norm: f32 = vector.iter().map(|v| v * v).sum();
            assert!((norm - 1.0).abs() < 0.02, "class {class}: {norm}");
        }
    }

    #[test]
    fn the_embedding_takes_the_place_of_the_features_and_logits_stay() {
        let mut graph = Graph::new("g");
        graph.input("pixel_values", data_type::FLOAT, &[]);
        graph.op_to("Identity", &["pixel_values"], "logits", vec![]);
        graph.normalised("pixel_values", "embedding");
        graph.output("logits", &[Dim::Any("batch"), Dim::Fixed(CLASSES)]);
        graph.output("embedding", &[Dim::Any("batch"), Dim::Fixed(1280)]);
        let classifier = graph.finish();
        let file = export(&classifier).unwrap();
        let graph = ModelProto::decode(&file[..]).unwrap().graph.unwrap();
        let names: Vec<_> = graph.output.iter().filter_map(|o| o.name.as_deref()).collect();
        assert_eq!(names, ["logits", "embedding"]);
        let makers = graph.node.iter().filter(|n| n.output.iter().any(|o| o == "embedding"));
        assert_eq!(makers.count(), 1);
        assert_eq!(file, export(&classifier).unwrap());
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        assert!(export(b"no onnx").is_err());
        assert!(export(&Graph::new("g").finish()).unwrap_err().to_string().contains("`logits`"));
    }
}
