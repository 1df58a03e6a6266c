//! A request taken in: headers read, body read within its bounds, extra parameters settled.
//!
//! Separate so that bad input answers in our error shape before a handler runs. Handlers get a `Call` and parse its body with
//! the parser of their route.

use crate::app::App;
use crate::auth::Caller;
use crate::config::ExtraDefault;
use crate::context::{Context, Family};
use crate::deployments::{Deployment, Modality, Selector, Table};
use crate::error::{self, ApiError};
use crate::events::{Record, Step};
use crate::guard::Screening;
use crate::limit::Estimate;
use crate::pieces::{Piece, PieceStream};
use crate::room::Held;
use api_types::rest::{Dialect, Parsed, Vocabulary, extra_parameters_fault};
use api_types::{ErrorCode, Fault};
use axum::RequestExt as _;
use axum::body::Body;
use axum::extract::{FromRequest, RawPathParams, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt as _, LengthLimitError};
use std::sync::Arc;
use std::time::Duration;

/// What becomes of extra parameters, by its published name and that of early .NET clients.
const EXTRA_HEADERS: [&str; 2] = ["extra-parameters", "unknown-parameters"];
/// Chooses a deployment.
const DEPLOYMENT_HEADER: HeaderName = HeaderName::from_static("azureml-model-deployment");
/// Chooses a model.
const MESH_HEADER: HeaderName = HeaderName::from_static("x-ms-model-mesh-model-name");
/// Words of `Cache-Control` by which a caller asks for a new answer.
const UNCACHED: [&str; 2] = ["no-cache", "no-store"];
/// What limits call the routes of content safety.
const SAFETY_NAME: &str = "content-safety";
/// Name of the path segment in `/openai/deployments/{deployment}`.
const PATH_SEGMENT: &str = "deployment";

/// What becomes of body properties that are not part of the API (section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraParameters {
    /// Refuse the request.
    Error,
    /// Remove them.
    Drop,
    /// Hand them to the model.
    PassThrough,
}

impl From<ExtraDefault> for ExtraParameters {
    fn from(default: ExtraDefault) -> Self {
        match default {
            ExtraDefault::Error => Self::Error,
            ExtraDefault::Drop => Self::Drop,
            ExtraDefault::PassThrough => Self::PassThrough,
        }
    }
}

impl ExtraParameters {
    /// What `headers` say, in any of the spellings that were ever published.
    fn of(headers: &HeaderMap, default: ExtraDefault) -> Result<Self, Fault> {
        let Some(value) = EXTRA_HEADERS.iter().find_map(|name| headers.get(*name)) else {
            return Ok(default.into());
        };
        let word = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match word.as_str() {
            "error" | "" => Ok(Self::Error),
            "drop" | "ignore" => Ok(Self::Drop),
            "pass-through" | "pass_through" | "allow" => Ok(Self::PassThrough),
            _ => Err(Fault::invalid(
                EXTRA_HEADERS[0],
                "unexpected value of the `extra-parameters` header; expected `error`, `drop` or `pass-through`",
            )),
        }
    }
}

/// What a request without a body says: who should answer, and how.
#[derive(Debug, Clone)]
pub struct Head {
    /// Family, version, deadline.
    pub context: Context,
    /// To be filled on the way.
    pub record: Arc<Record>,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Whether the caller wants a new answer where one is kept.
    pub fresh: bool,
    /// Parameters that were taken out because the caller, or configuration, says so.
    pub dropped: Vec<String>,
    /// The deployment that path and headers name.
    selector: Selector,
}

impl Head {
    fn of(request: &Request) -> Result<Self, Fault> {
        let extensions = request.extensions();
        let (Some(context), Some(record), Some(caller)) = (
            extensions.get::<Context>(),
            extensions.get::<Arc<Record>>(),
            extensions.get::<Arc<Caller>>(),
        ) else {
            return Err(Fault::new(
                ErrorCode::Internal,
                "the server had an error processing your request",
            ));
        };
        let header =
            |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let selector = Selector {
            deployment_header: header(DEPLOYMENT_HEADER),
            mesh_header: header(MESH_HEADER),
            ..Selector::default()
        };
        let (record, caller) = (Arc::clone(record), Arc::clone(caller));
        let fresh =
            header(CACHE_CONTROL).is_some_and(|v| UNCACHED.iter().any(|word| v.contains(word)));
        Ok(Self { context: *context, record, caller, fresh, dropped: Vec::new(), selector })
    }

    #[cfg(test)]
    pub(crate) fn for_tests(context: Context, record: Arc<Record>) -> Self {
        let caller = Arc::new(Caller::anybody());
        let selector = Selector::default();
        Self { context, record, caller, fresh: false, dropped: Vec::new(), selector }
    }

    async fn take(app: &App, request: &mut Request) -> Result<Self, ApiError> {
        let mut head = Self::of(request)?;
        head.context.check_version(request.uri(), app.config.api.versions)?;
        head.selector.path = match request.extract_parts::<RawPathParams>().await {
            Ok(params) => params
                .iter()
                .find(|(name, _)| *name == PATH_SEGMENT)
                .map(|(_, value)| value.to_owned()),
            // The segment is not UTF-8 once decoded: no deployment can be called so.
            Err(_) => return Err(error::not_found().await),
        };
        if head.context.family == Family::ContentSafety {
            // No deployment is behind these routes; limits know them by this name.
            head.admit(app, SAFETY_NAME, Estimate::default()).await?;
        }
        Ok(head)
    }

    /// The deployment that answers, where the body or the query names `model`.
    ///
    /// # Errors
    /// As `Table::select`.
    pub fn select(
        &self,
        app: &App,
        model: Option<&str>,
        modality: Modality,
    ) -> Result<Arc<Deployment>, Fault> {
        let table = app.table();
        let selector = self.selector(&table, model);
        let deployment = table.select(&selector, modality, self.context.family)?;
        self.record.deployment(&deployment.name);
        self.permit(&deployment)?;
        Ok(deployment)
    }

    /// Whether the caller may use `deployment` by this route.
    ///
    /// # Errors
    /// 403.
    pub fn permit(&self, deployment: &Deployment) -> Result<(), Fault> {
        self.caller.may_use(&deployment.name, self.context.route, self.context.family)
    }

    /// How the request is screened before and after `deployment`.
    #[must_use]
    pub fn screening(&self, deployment: &Deployment) -> Screening {
        Screening { shadow: self.caller.shadow, ..deployment.screening.clone() }
    }

    /// Takes what the request will cost from the limits of its caller and of `deployment`, until its end; waits for a slot where
    /// configuration says so.
    ///
    /// # Errors
    /// 429 over a limit, 503 where limits cannot be counted and must be.
    pub async fn admit(
        &self,
        app: &App,
        deployment: &str,
        estimate: Estimate,
    ) -> Result<(), Fault> {
        let admitted = app.limits.admit(&self.caller, deployment, estimate);
        let outcome = self.record.timed(Step::Limit, admitted).await;
        if let Some(figures) = outcome.figures {
            self.record.figures(figures);
        }
        if let Some(ticket) = outcome.ticket? {
            self.record.hold(ticket);
        }
        self.record.reserve(deployment, estimate.total());
        Ok(())
    }

    /// The same pieces; the tokens they tell of are noted, and those nobody has told of yet are counted.
    pub fn watch(&self, pieces: PieceStream) -> PieceStream {
        let record = Arc::clone(&self.record);
        pieces
            .inspect(move |piece| match piece {
                Ok(Piece::Usage(usage)) => record.tokens(usage.prompt, usage.completion),
                Ok(Piece::Text(_) | Piece::Reasoning { .. } | Piece::ToolCall(_)) => record.piece(),
                Ok(Piece::Started(_) | Piece::Vetted { .. } | Piece::Finished { .. }) | Err(_) => {}
            })
            .boxed()
    }

    /// The names this request gives, with the `model` of body or query; the one there is where the root has but one.
    #[must_use]
    pub fn selector(&self, table: &Table, model: Option<&str>) -> Selector {
        match table.root().filter(|_| self.context.root) {
            Some(only) => Selector { model: Some(only.to_owned()), ..Selector::default() },
            None => Selector { model: model.map(str::to_owned), ..self.selector.clone() },
        }
    }
}

impl FromRequest<App> for Head {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        Self::take(app, &mut request).await
    }
}

/// A request with a JSON body.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it says besides its body.
    pub head: Head,
    /// What becomes of extra parameters.
    extra: ExtraParameters,
    /// The bytes, within the limits but otherwise unread.
    pub body: Bytes,
}

impl FromRequest<App> for Call {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        let head = Head::take(app, &mut request).await?;
        require_json(request.headers())?;
        let extra = match head.context.family {
            Family::Inference => {
                ExtraParameters::of(request.headers(), app.config.api.extra_parameters)?
            }
            // These routes have no such rule: what is unknown is ignored (section 15).
            Family::Deployments | Family::OpenAi | Family::ContentSafety => {
                ExtraParameters::PassThrough
            }
        };
        let body = read(request, app, &head.record).await?;
        Ok(Self { head, extra, body })
    }
}

impl Call {
    /// The names that are ordinary on this request's route.
    #[must_use]
    pub fn vocabulary<'a>(&self, app: &'a App) -> Vocabulary<'a> {
        Vocabulary { dialect: self.dialect(), also_known: &app.config.api.also_known }
    }

    /// Which family's names and defaults apply.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        if self.head.context.family.is_openai() { Dialect::OpenAi } else { Dialect::Inference }
    }

    /// Does with extra properties what the header says; `admit` reads OpenAI's names among those that pass.
    ///
    /// # Errors
    /// 400 when there are extra properties and the header does not allow them.
    pub fn settle<T>(
        &mut self,
        mut parsed: Parsed<T>,
        admit: fn(Parsed<T>) -> Result<Parsed<T>, Fault>,
    ) -> Result<Parsed<T>, Fault> {
        match self.extra {
            ExtraParameters::Error if parsed.extra.is_empty() => Ok(parsed),
            ExtraParameters::Error => Err(extra_parameters_fault(&parsed.extra)),
            ExtraParameters::Drop => {
                let dropped = std::mem::take(&mut parsed.extra);
                self.head.dropped.extend(dropped.into_iter().map(|(name, _)| name));
                Ok(parsed)
            }
            ExtraParameters::PassThrough => admit(parsed),
        }
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Fault> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().trim_ascii());
    if encoding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let message = "Content-Encoding is not supported here; send the body as it is.";
        return Err(Fault::new(ErrorCode::UnsupportedMediaType, message));
    }
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json {
        return Ok(());
    }
    Err(Fault::new(ErrorCode::UnsupportedMediaType, "Content-Type must be application/json."))
}

/// Reads the body; `body_size` has bounded it already, so only time and the room for all bodies are bounded here.
async fn read(request: Request, app: &App, record: &Record) -> Result<Bytes, Fault> {
    let limits = &app.config.limits;
    let within = Duration::from_millis(limits.body_timeout_ms);
    let mut held = Held::default();
    let bytes = tokio::time::timeout(within, collect(request.into_body(), app, &mut held)).await;
    let bytes = bytes.unwrap_or_else(|_elapsed| {
        let seconds = within.as_secs_f64();
        let message = format!("the request body did not arrive within {seconds} seconds");
        Err(Fault::new(ErrorCode::InvalidRequest, message))
    });
    let bytes = bytes.and_then(|bytes| app.room.take_structure(&bytes, &mut held).map(|()| bytes));
    record.hold_room(held);
    bytes
}

async fn collect(mut body: Body, app: &App, held: &mut Held) -> Result<Bytes, Fault> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| {
            if is_too_large(&cause) {
                error::too_large(app.config.limits.body_bytes)
            } else {
                Fault::new(ErrorCode::InvalidRequest, "the request body ended too early")
            }
        })?;
        if let Ok(data) = frame.into_data() {
            app.room.take(data.len(), held)?;
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
