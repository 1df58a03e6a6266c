//! Texts or images in, vectors out.
