//! Calls somebody else's model server that speaks the OpenAI protocol.
