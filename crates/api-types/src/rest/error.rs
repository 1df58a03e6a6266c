//! The bodies of errors: one fault, four families (section 6).
//!
//! The hybrid has Azure's envelope and the flat fields of the first version in one object, because clients in the wild read
//! one or the other; never a string under `error`, which breaks both SDKs.

mod described;

use super::content_filter::ContentFilterResults;
use crate::{Detail, ErrorCode, Fault};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// What `message` says of a 422, literally.
const PARAMETER_MESSAGE: &str = "One of the parameters contain invalid values.";
/// What `message` says of a blocked prompt at the top level, literally.
const FILTERED_MESSAGE: &str = "The response was filtered";

/// Which family of bodies a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorStyle {
    /// The inference routes: envelope and flat fields together.
    Hybrid,
    /// The inference routes under `api-version=2024-04-01-preview`: flat fields alone.
    Flat,
    /// OpenAI's routes: `{"error":{message, type, param, code}}`.
    OpenAi,
    /// The Content Safety routes: the envelope with that service's codes.
    ContentSafety,
}

impl ErrorStyle {
    /// HTTP status of a code: OpenAI's routes know no 422 (section 15).
    #[must_use]
    pub const fn status(self, code: ErrorCode) -> u16 {
        match (self, code.http()) {
            (Self::OpenAi, 422) => 400,
            (Self::Hybrid | Self::Flat | Self::OpenAi | Self::ContentSafety, status) => status,
        }
    }

    /// `error.code` and the value of `x-ms-error-code`.
    #[must_use]
    pub fn code(self, code: ErrorCode) -> &'static str {
        const OPENAI: &[(ErrorCode, &str)] = &[
            (ErrorCode::UnknownModel, "model_not_found"),
            (ErrorCode::ParameterNotSupported, "unsupported_value"),
            (ErrorCode::ParameterRefused, "unsupported_parameter"),
        ];
        const CONTENT_SAFETY: &[(ErrorCode, &str)] = &[
            (ErrorCode::InvalidRequest, "InvalidRequestBody"),
            (ErrorCode::RateLimited, "TooManyRequests"),
            (ErrorCode::Unavailable, "ServerBusy"),
            (ErrorCode::Internal, "InternalError"),
            (ErrorCode::UpstreamFailed, "InternalError"),
        ];
        let own = match self {
            Self::Hybrid | Self::Flat => &[],
            Self::OpenAi => OPENAI,
            Self::ContentSafety => CONTENT_SAFETY,
        };
        own.iter().find(|(general, _)| *general == code).map_or(code.as_str(), |(_, word)| word)
    }
}

/// The JSON body of an error.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What the SDKs read; left out in exactly the bodies of the first version.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorObject>,
    #[serde(flatten)]
    flat: Option<FlatFields>,
    /// The message again, where some clients and proxies look for it.
    #[serde(rename = "detail", skip_serializing_if = "Option::is_none")]
    extra_detail: Option<String>,
}

impl ErrorBody {
    /// The body of a fault.
    #[must_use]
    pub fn new(fault: &Fault, style: ErrorStyle) -> Self {
        let openai = || Some(ErrorObject::openai(fault));
        let (error, flat) = match style {
            ErrorStyle::Hybrid if fault.code == ErrorCode::ContentFiltered => (openai(), true),
            ErrorStyle::Hybrid => (Some(ErrorObject::azure(fault, style)), true),
            ErrorStyle::Flat => (None, true),
            ErrorStyle::OpenAi => (openai(), false),
            ErrorStyle::ContentSafety => (Some(ErrorObject::azure(fault, style)), false),
        };
        let repeats = style == ErrorStyle::Hybrid && fault.code == ErrorCode::ExtraParameters;
        Self {
            error,
            flat: flat.then(|| FlatFields::new(fault)),
            extra_detail: repeats.then(|| fault.message.clone()),
        }
    }

    /// The body of a blocked prompt, with what was found in it (section 13.3).
    #[must_use]
    pub fn content_filtered(
        fault: &Fault,
        results: &ContentFilterResults,
        style: ErrorStyle,
    ) -> Self {
        let mut body = Self::new(fault, style);
        if let Some(error) = &mut body.error {
            error.innererror = Some(InnerError {
                code: "ResponsibleAIPolicyViolation",
                content_filter_result: Some(results.clone()),
            });
        }
        body
    }
}

/// What stands under `error`. A field is left out where its family has none; OpenAI's `type` and `param` may be null.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct ErrorObject {
    /// Which error; the value of `x-ms-error-code`.
    code: &'static str,
    /// For people: what was wrong and what was expected.
    message: String,
    /// OpenAI's class of errors.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Option<&'static str>>,
    /// The offending field; OpenAI's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<Option<String>>,
    /// The offending field as a dotted path (`messages.0.role`).
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Every offence, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Value>,
    /// More about the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    innererror: Option<InnerError>,
}

/// More about the cause of an error.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct InnerError {
    /// A finer code.
    code: &'static str,
    /// What the content filter found in the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_filter_result: Option<ContentFilterResults>,
}

impl ErrorObject {
    /// Azure's.
    fn azure(fault: &Fault, style: ErrorStyle) -> Self {
        let unsupported = is_unsupported(fault.code);
        let version = fault.code == ErrorCode::UnsupportedApiVersion;
        Self {
            code: style.code(fault.code),
            message: if unsupported { PARAMETER_MESSAGE.to_owned() } else { fault.message.clone() },
            kind: None,
            param: None,
            target: fault.target.clone(),
            status: unsupported.then(|| fault.code.http()),
            details: if unsupported { unsupported_details(fault) } else { details(fault) },
            innererror: version.then_some(InnerError {
                code: "UnsupportedApiVersionValue",
                content_filter_result: None,
            }),
        }
    }

    /// OpenAI's.
    fn openai(fault: &Fault) -> Self {
        let filtered = fault.code == ErrorCode::ContentFiltered;
        Self {
            code: ErrorStyle::OpenAi.code(fault.code),
            message: fault.message.clone(),
            kind: Some(openai_type(fault.code)),
            param: Some(openai_param(fault)),
            target: None,
            status: filtered.then(|| fault.code.http()),
            details: Vec::new(),
            innererror: None,
        }
    }
}

/// The flat fields of the first version.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct FlatFields {
    /// The HTTP status.
    status: u16,
    /// Which error.
    code: &'static str,
    /// Which value a model cannot do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<FlatDetail>,
    /// For people.
    message: String,
    /// What a policy blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'static str>,
    /// Null where it is there.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Value>,
}

/// Which value a model cannot do.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct FlatDetail {
    /// Where: `body`, then a name or a position per step.
    loc: Vec<Value>,
    /// The value.
    input: Option<Value>,
}

impl FlatFields {
    fn new(fault: &Fault) -> Self {
        let filtered = fault.code == ErrorCode::ContentFiltered;
        let unsupported = is_unsupported(fault.code);
        let message = match (unsupported, filtered) {
            (true, _) => PARAMETER_MESSAGE.to_owned(),
            (_, true) => FILTERED_MESSAGE.to_owned(),
            (false, false) => fault.message.clone(),
        };
        Self {
            status: fault.code.http(),
            code: fault.code.as_str(),
            detail: unsupported.then(|| FlatDetail {
                loc: loc(fault.target.as_deref()),
                input: fault.input.clone(),
            }),
            message,
            param: filtered.then_some("messages"),
            kind: filtered.then_some(Value::Null),
        }
    }
}

fn is_unsupported(code: ErrorCode) -> bool {
    code == ErrorCode::ParameterNotSupported || code == ErrorCode::ParameterRefused
}

fn details(fault: &Fault) -> Vec<Value> {
    let one = |detail: &Detail| json!({"code": detail.code, "target": detail.target, "message": detail.message});
    fault.details.iter().map(one).collect()
}

/// The offence itself, then the others if there are several.
fn unsupported_details(fault: &Fault) -> Vec<Value> {
    let first = json!({
        "type": fault.code.as_str(),
        "loc": loc(fault.target.as_deref()),
        "msg": fault.message,
        "input": fault.input,
    });
    let others = fault.details.iter().map(|detail| {
        json!({"type": detail.code, "loc": loc(Some(&detail.target)), "msg": detail.message})
    });
    std::iter::once(first).chain(others).collect()
}

fn openai_param(fault: &Fault) -> Option<String> {
    if fault.code == ErrorCode::ContentFiltered {
        return Some("prompt".to_owned());
    }
    let model = fault.code == ErrorCode::UnknownModel;
    fault.target.clone().or_else(|| model.then(|| "model".to_owned()))
}

fn openai_type(code: ErrorCode) -> Option<&'static str> {
    match code.http() {
        _ if code == ErrorCode::ContentFiltered => None,
        401 => Some("authentication_error"),
        403 => Some("permission_error"),
        429 => Some("rate_limit_error"),
        500.. => Some("server_error"),
        _ => Some("invalid_request_error"),
    }
}

/// A dotted path as the list that starts with `body`, array positions as numbers.
fn loc(target: Option<&str>) -> Vec<Value> {
    let steps = target.into_iter().flat_map(|target| target.split('.'));
    let steps = steps.map(|step| step.parse::<u64>().map_or_else(|_| json!(step), Value::from));
    std::iter::once(json!("body")).chain(steps).collect()
}

#[cfg(test)]
mod tests;
