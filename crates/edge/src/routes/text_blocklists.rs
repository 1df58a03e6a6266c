//! `/contentsafety/text/blocklists` and everything below it.
//!
//! A segment such as `words:addOrUpdateBlocklistItems` names a list and what to do with it. The router matches whole segments
//! only, so the two extractors here tell the kinds apart; each kind has its own methods, and `Allow` says so.

use crate::app::App;
use crate::error::{self, ApiError};
use crate::extract::{Call, Head};
use crate::translate::content_safety::fault_from_rpc;
use crate::translate::text_blocklists as translate;
use api_types::rest::text_blocklists::{
    AddOrUpdateBlocklistItemsRequest, BlocklistItems, BlocklistName, PagedTextBlocklistItems,
    PagedTextBlocklists, Paging, PatchBlocklistRequest, RemoveBlocklistItemsRequest, TextBlocklist,
    TextBlocklistItem,
};
use api_types::rpc::content_safety::ListBlocklistsRequest;
use api_types::{ErrorCode, Fault};
use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

/// What may follow the name of a list and a colon.
const ADD: &str = "addOrUpdateBlocklistItems";
const REMOVE: &str = "removeBlocklistItems";
/// Methods of a list.
const LIST_METHODS: &str = "GET,HEAD,PATCH,DELETE";
/// Methods of what is done with one.
const ACTION_METHODS: &str = "POST";
/// What the router takes off the path before it asks a handler.
const PREFIX: &str = "/contentsafety";
/// Parameters of the paths in the router.
const NAME: &str = "name";
const ID: &str = "id";
/// How, and under which host, a proxy in front of this server was called.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// All lists.
///
/// # Errors
/// What the service says.
pub async fn list(
    State(app): State<App>,
    head: Head,
) -> Result<Json<PagedTextBlocklists>, ApiError> {
    let response = app.list_blocklists(ListBlocklistsRequest {}, &head.context).await?;
    Ok(Json(translate::lists_from_rpc(response)))
}

/// One list.
///
/// # Errors
/// 404 for one that is not there.
pub async fn get(
    State(app): State<App>,
    ListPath(name): ListPath,
    head: Head,
) -> Result<Json<TextBlocklist>, ApiError> {
    let response = app.get_blocklist(translate::get_to_rpc(name), &head.context).await?;
    Ok(Json(translate::get_from_rpc(response)))
}

/// Makes a list (201) or changes its description (200).
///
/// # Errors
/// 400 for a bad body, 403 for a list of the configuration.
pub async fn patch(
    State(app): State<App>,
    ListPath(name): ListPath,
    call: Call,
) -> Result<(StatusCode, Json<TextBlocklist>), ApiError> {
    let request = PatchBlocklistRequest::parse(&call.body, &name)?;
    let request = translate::patch_to_rpc(name, request);
    let response = app.upsert_blocklist(request, &call.head.context).await?;
    let (list, created) = translate::patch_from_rpc(response);
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(list)))
}

/// Removes a list.
///
/// # Errors
/// 404 for one that is not there, 403 for one of the configuration.
pub async fn delete(
    State(app): State<App>,
    ListPath(name): ListPath,
    head: Head,
) -> Result<StatusCode, ApiError> {
    app.delete_blocklist(translate::delete_to_rpc(name), &head.context).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds items to a list, or removes some.
///
/// # Errors
/// 400 for a bad body, 403 for a list of the configuration, 404 for one that is not there.
pub async fn act(
    State(app): State<App>,
    ActionPath(name, action): ActionPath,
    call: Call,
) -> Result<Response, ApiError> {
    let context = &call.head.context;
    match action {
        Action::Add => {
            let request = AddOrUpdateBlocklistItemsRequest::parse(&call.body)?;
            let request = translate::add_to_rpc(name, request);
            let response = app.upsert_blocklist_items(request, context).await;
            let items = translate::add_from_rpc(response.map_err(fault_from_rpc)?);
            Ok(Json(BlocklistItems { blocklist_items: items }).into_response())
        }
        Action::Remove => {
            let request = RemoveBlocklistItemsRequest::parse(&call.body)?;
            let request = translate::remove_to_rpc(name, request);
            app.remove_blocklist_items(request, context).await.map_err(fault_from_rpc)?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

/// A page of the items of a list.
///
/// # Errors
/// 400 for a bad query, 404 for a list that is not there.
pub async fn items(
    State(app): State<App>,
    ListPath(name): ListPath,
    headers: HeaderMap,
    uri: Uri,
    head: Head,
) -> Result<Json<PagedTextBlocklistItems>, ApiError> {
    let query = uri.query().unwrap_or_default();
    let paging = Paging::parse(query)?;
    let request = translate::page_to_rpc(&name, paging);
    let response = app.list_blocklist_items(request, &head.context).await?;
    let (value, next) = translate::page_from_rpc(response, paging);
    let next_link = next.map(|next| {
        let origin = origin(&headers, &uri);
        let version = version(query);
        let name = name.as_str();
        let path = format!("{PREFIX}/text/blocklists/{name}/blocklistItems");
        format!("{origin}{path}?api-version={version}{}", next.to_query())
    });
    Ok(Json(PagedTextBlocklistItems { value, next_link }))
}

/// One item of a list.
///
/// # Errors
/// 404 for a list or an item that is not there.
pub async fn item(
    State(app): State<App>,
    ListPath(name): ListPath,
    params: RawPathParams,
    head: Head,
) -> Result<Json<TextBlocklistItem>, ApiError> {
    let id = param(&params, ID).to_owned();
    let request = translate::item_to_rpc(name, id);
    let response = app.get_blocklist_item(request, &head.context).await?;
    Ok(Json(translate::get_item_from_rpc(response)))
}

/// 405 with the methods of a list, or of what is done with one.
pub async fn wrong_method(method: Method, uri: Uri, params: RawPathParams) -> Response {
    let action = action(param(&params, NAME)).is_some();
    not_allowed(&method, &uri, if action { ACTION_METHODS } else { LIST_METHODS })
}

/// A path that names a list.
#[derive(Debug)]
pub struct ListPath(BlocklistName);

impl FromRequestParts<App> for ListPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let segment = segment(parts, app).await?;
        if action(&segment).is_some() {
            return Err(not_allowed(&parts.method, &parts.uri, ACTION_METHODS));
        }
        named(&segment).map(Self)
    }
}

/// A path that names a list and what to do with it.
#[derive(Debug)]
pub struct ActionPath(BlocklistName, Action);

/// What is done with the items of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They are added, or their descriptions changed.
    Add,
    /// They are removed.
    Remove,
}

impl FromRequestParts<App> for ActionPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let segment = segment(parts, app).await?;
        match action(&segment) {
            Some((name, action)) => Ok(Self(named(name)?, action)),
            None if segment.contains(':') => Err(error::not_found().await.into_response()),
            None => Err(not_allowed(&parts.method, &parts.uri, LIST_METHODS)),
        }
    }
}

/// The segment that names a list, decoded; one that is not UTF-8 names nothing.
async fn segment(parts: &mut Parts, app: &App) -> Result<String, Response> {
    match RawPathParams::from_request_parts(parts, app).await {
        Ok(params) => Ok(param(&params, NAME).to_owned()),
        Err(_not_utf8) => Err(error::not_found().await.into_response()),
    }
}

fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

/// The list and the action of a segment; none where it is a list alone, or an action that is not known.
fn action(segment: &str) -> Option<(&str, Action)> {
    match segment.rsplit_once(':')? {
        (name, ADD) => Some((name, Action::Add)),
        (name, REMOVE) => Some((name, Action::Remove)),
        (_, _) => None,
    }
}

fn named(name: &str) -> Result<BlocklistName, Response> {
    BlocklistName::parse(name).map_err(|fault| ApiError::from(fault).into_response())
}

fn not_allowed(method: &Method, uri: &Uri, methods: &'static str) -> Response {
    let message = format!("{method} is not supported on {PREFIX}{}.", uri.path());
    let error = ApiError::from(Fault::new(ErrorCode::MethodNotAllowed, message));
    ([(ALLOW, methods)], error).into_response()
}

/// Scheme and host by which the caller reached this server; empty, so that a link stays relative, where nothing says. What a
/// caller claims here comes back to nobody else.
fn origin(headers: &HeaderMap, uri: &Uri) -> String {
    let text = |name: &HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok())?;
        // A chain of proxies lists the outermost first.
        value.split(',').next().map(str::trim)
    };
    let host = text(&FORWARDED_HOST).or_else(|| text(&HOST));
    let host = host.or_else(|| uri.authority().map(Authority::as_str));
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        return String::new();
    };
    let secure = text(&FORWARDED_PROTO).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    format!("{}://{host}", if secure { "https" } else { "http" })
}

/// The version that the query names; it was checked before.
fn version(query: &str) -> &str {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut versions = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("api-version"));
    versions.next().map_or("", |(_, version)| version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_colon_parts_the_list_from_what_is_done_with_it() {
        assert_eq!(action("a:addOrUpdateBlocklistItems"), Some(("a", Action::Add)));
        assert_eq!(action("a.b:removeBlocklistItems"), Some(("a.b", Action::Remove)));
        assert_eq!(action("a:b:removeBlocklistItems"), Some(("a:b", Action::Remove)));
        assert_eq!(action("a"), None);
        assert_eq!(action("a:other"), None);
    }

    #[test]
    fn links_lead_back_the_way_the_caller_came() {
        let origin = |headers: &[(&'static str, &'static str)], uri: &'static str| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            origin(&headers.iter().map(pair).collect(), &Uri::from_static(uri))
        };
        assert_eq!(origin(&[("host", "koine:8080")], "/x"), "http://koine:8080");
        assert_eq!(origin(&[], "http://koine:8080/x"), "http://koine:8080");
        let proxied = [
            ("host", "10.0.0.1"),
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "ai.example.org"),
        ];
        assert_eq!(origin(&proxied, "/x"), "https://ai.example.org");
        assert_eq!(origin(&[("host", "no host")], "/x"), "");
        assert_eq!(origin(&[], "/x"), "");
    }
}
