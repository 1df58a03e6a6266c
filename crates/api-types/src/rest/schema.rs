//! What the published schemas need besides the derives: forms that no Rust type says by itself.
//!
//! Separate because every reader of a union has one. A schema stands beside the reader it describes, and `agreement` tests
//! that both take the same values; a form that only one of them knows is a bug.

/// A type that stands for a schema which is written out where it is used.
macro_rules! inline_schema {
    ($name:ident, $schema:expr) => {
        struct $name;

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}

pub(super) use inline_schema;

/// Names of functions and schemas.
pub(super) const NAME: &str = "^[A-Za-z0-9_-]{1,64}$";
/// Standard base64 with padding, not empty; the last digit before a padding holds no stray bits.
macro_rules! base64_pattern {
    () => {
        "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)\\s*$"
    };
}
/// A data URL that says to be an image, up to its data.
macro_rules! image_url_pattern {
    () => {
        "[dD][aA][tT][aA]:[iI][mM][aA][gG][eE]/[^;,]+(?:;[^,]*)?;base64,"
    };
}
/// Base64 alone.
pub(super) const BASE64: &str = concat!("^", base64_pattern!());
/// An image within the request.
pub(super) const IMAGE_DATA_URL: &str = concat!("^", image_url_pattern!(), base64_pattern!());
/// An image within the request, whose data is not looked at, or elsewhere.
pub(super) const IMAGE_URL: &str =
    concat!("^(?:[hH][tT][tT][pP][sS]?://[\\s\\S]|", image_url_pattern!(), ")");
/// A sound within the request, whose data is not looked at, or elsewhere.
pub(super) const AUDIO_URL: &str =
    "^(?:[hH][tT][tT][pP][sS]?://[\\s\\S]|[dD][aA][tT][aA]:[^,]*;base64,)";
