//! The REST face: authenticate, validate, screen, translate, stream.
