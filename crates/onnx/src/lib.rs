//! Runs ONNX models; the only crate that knows ONNX Runtime.
