//! `/contentsafety/text:analyze`, `image:analyze`, `text:shieldPrompt` and `text:detectProtectedMaterial`: judgements without a
//! model behind them.

use crate::app::App;
use crate::error::ApiError;
use crate::events::Step;
use crate::extract::Call;
use crate::translate::content_safety;
use api_types::Fault;
use api_types::rest::content_safety::{
    AnalyzeImageRequest, AnalyzeImageResult, AnalyzeTextRequest, AnalyzeTextResult,
    DetectProtectedMaterialRequest, DetectProtectedMaterialResult, ImageSource,
    ShieldPromptRequest, ShieldPromptResult,
};
use axum::Json;
use axum::extract::State;

/// Severities of a text.
///
/// # Errors
/// 400 for a bad body, 404 for an unknown blocklist.
pub async fn analyze_text(
    State(app): State<App>,
    call: Call,
) -> Result<Json<AnalyzeTextResult>, ApiError> {
    let request = AnalyzeTextRequest::parse(&call.body)?;
    let output = request.output_type;
    let judged = app.analyze(content_safety::analyze_to_rpc(request), &call.head.context);
    let response = call
        .head
        .record
        .timed(Step::Model, judged)
        .await
        .map_err(content_safety::fault_from_rpc)?;
    Ok(Json(content_safety::analyze_from_rpc(response, output)))
}

/// Severities of an image.
///
/// # Errors
/// 400 for a bad body or an image behind a URL.
pub async fn analyze_image(
    State(app): State<App>,
    call: Call,
) -> Result<Json<AnalyzeImageResult>, ApiError> {
    let AnalyzeImageRequest { image, categories } = AnalyzeImageRequest::parse(&call.body)?;
    let image = match image {
        ImageSource::Content(image) => image,
        // Fetching addresses that callers choose would let them reach into the network behind this server.
        ImageSource::BlobUrl(_) => {
            let message =
                "`image.blobUrl` is not fetched by this server; send the file as `image.content`";
            return Err(Fault::invalid("image.blobUrl", message).into());
        }
    };
    let judged =
        app.analyze_image(content_safety::image_to_rpc(image, &categories), &call.head.context);
    let response = call
        .head
        .record
        .timed(Step::Model, judged)
        .await
        .map_err(content_safety::fault_from_rpc)?;
    Ok(Json(content_safety::image_from_rpc(response)))
}

/// Whether a prompt or documents attack the model that reads them.
///
/// # Errors
/// 400 for a bad body.
pub async fn shield_prompt(
    State(app): State<App>,
    call: Call,
) -> Result<Json<ShieldPromptResult>, ApiError> {
    let request = ShieldPromptRequest::parse(&call.body)?;
    let judged = app.shield_prompt(content_safety::shield_to_rpc(request), &call.head.context);
    let response = call
        .head
        .record
        .timed(Step::Model, judged)
        .await
        .map_err(content_safety::fault_from_rpc)?;
    Ok(Json(content_safety::shield_from_rpc(response)))
}

/// Whether a text repeats one that is somebody's.
///
/// # Errors
/// 400 for a bad body, 404 where there is nothing to compare with.
pub async fn detect_protected_text(
    State(app): State<App>,
    call: Call,
) -> Result<Json<DetectProtectedMaterialResult>, ApiError> {
    let request = DetectProtectedMaterialRequest::parse_text(&call.body)?;
    let request = content_safety::protected_text_to_rpc(request);
    let response = app.detect_protected_text(request, &call.head.context).await?;
    Ok(Json(content_safety::protected_text_from_rpc(response)))
}

/// The same for code, with where it is from.
///
/// # Errors
/// 400 for a bad body, 404 where there is nothing to compare with.
pub async fn detect_protected_code(
    State(app): State<App>,
    call: Call,
) -> Result<Json<DetectProtectedMaterialResult>, ApiError> {
    let request = DetectProtectedMaterialRequest::parse_code(&call.body)?;
    let request = content_safety::protected_code_to_rpc(request);
    let response = app.detect_protected_code(request, &call.head.context).await?;
    Ok(Json(content_safety::protected_code_from_rpc(response)))
}
