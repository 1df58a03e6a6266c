//! The schemas of the bodies of errors, one per style.
//!
//! Separate from the bodies because a description needs what no single body shows: that one route answers two shapes.

use super::{ErrorBody, ErrorObject, ErrorStyle, FlatDetail};
use schemars::{JsonSchema as _, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

impl ErrorBody {
    /// The schema of the bodies of a style; that of `Hybrid` has the bodies of `Flat` too, for one route answers both.
    #[must_use]
    pub fn schema(generator: &mut SchemaGenerator, style: ErrorStyle) -> Schema {
        let error = generator.subschema_for::<ErrorObject>();
        match style {
            ErrorStyle::Hybrid | ErrorStyle::Flat => {
                let mut schema = Self::json_schema(generator);
                let detail = generator.subschema_for::<FlatDetail>();
                if let Some(Value::Object(properties)) = schema.get_mut("properties") {
                    let text = json!({"type": "string"});
                    properties.insert("detail".to_owned(), json!({"anyOf": [detail, text]}));
                }
                schema.insert("required".to_owned(), json!(["status", "code", "message"]));
                schema
            }
            ErrorStyle::OpenAi => {
                let mut error = error;
                error.insert("required".to_owned(), json!(["type", "param"]));
                json_schema!({
                    "type": "object", "properties": {"error": error}, "required": ["error"]
                })
            }
            ErrorStyle::ContentSafety => json_schema!({
                "type": "object", "properties": {"error": error}, "required": ["error"]
            }),
        }
    }
}
