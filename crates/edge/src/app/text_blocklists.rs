//! The calls about blocklists and protected texts; all of them go to the content-safety service.
//!
//! Separate from the other calls because there are many of them and nothing but their messages differs.

use super::{App, failed, no_service, timed};
use crate::context::Context;
use api_types::Fault;
use api_types::rpc::content_safety as rpc;
use api_types::rpc::content_safety::content_safety_service_client::ContentSafetyServiceClient;
use chassis::grpc::Client;

/// One call of the content-safety service; it is called the same there.
macro_rules! call {
    ($(#[$about:meta])* $name:ident, $request:ident => $response:ident) => {
        $(#[$about])*
        ///
        /// # Errors
        /// What the content-safety service says.
        pub async fn $name(
            &self,
            request: rpc::$request,
            context: &Context,
        ) -> Result<rpc::$response, Fault> {
            let answer = self.safety()?.$name(timed(request, context)).await;
            Ok(answer.map_err(failed)?.into_inner())
        }
    };
}

impl App {
    call!(
        /// Whether a text repeats a protected one.
        detect_protected_text,
        DetectProtectedTextRequest => DetectProtectedTextResponse
    );
    call!(
        /// Whether code repeats protected code.
        detect_protected_code,
        DetectProtectedCodeRequest => DetectProtectedCodeResponse
    );
    call!(
        /// All blocklists.
        list_blocklists,
        ListBlocklistsRequest => ListBlocklistsResponse
    );
    call!(
        /// One blocklist.
        get_blocklist,
        GetBlocklistRequest => GetBlocklistResponse
    );
    call!(
        /// Makes a blocklist or changes its description.
        upsert_blocklist,
        UpsertBlocklistRequest => UpsertBlocklistResponse
    );
    call!(
        /// Removes a blocklist.
        delete_blocklist,
        DeleteBlocklistRequest => DeleteBlocklistResponse
    );
    call!(
        /// Adds items to a blocklist.
        upsert_blocklist_items,
        UpsertBlocklistItemsRequest => UpsertBlocklistItemsResponse
    );
    call!(
        /// Removes items from a blocklist.
        remove_blocklist_items,
        RemoveBlocklistItemsRequest => RemoveBlocklistItemsResponse
    );
    call!(
        /// A page of items of a blocklist.
        list_blocklist_items,
        ListBlocklistItemsRequest => ListBlocklistItemsResponse
    );
    call!(
        /// One item of a blocklist.
        get_blocklist_item,
        GetBlocklistItemRequest => GetBlocklistItemResponse
    );

    fn safety(&self) -> Result<ContentSafetyServiceClient<Client>, Fault> {
        self.safety.clone().ok_or_else(no_service)
    }
}
