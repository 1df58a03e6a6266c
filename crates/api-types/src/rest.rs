//! The public JSON schema: one file per endpoint.
