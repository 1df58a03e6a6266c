//! Text or images in, severities and a verdict out.
