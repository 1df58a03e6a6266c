//! Conversations in, pieces out.
