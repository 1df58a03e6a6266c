//! The calls about blocklists and protected texts: wire messages ⇄ the store.
//!
//! Separate from the other calls because these judge nothing. Changes wait for their turn here, without a thread, so that many
//! of them at once hold one thread and not all.

use super::Door;
use crate::blocklist::store::{Blocklists, Description};
use crate::blocklist::{Blocklist, Item, Kind, LONGEST_DESCRIPTION, NewItem};
use crate::error::SafetyError;
use crate::protected::Citation;
use api_types::rpc::content_safety as wire;
use onnx::OnnxError;
use std::sync::Arc;
use std::time::Duration;

/// Most items of one call (contract, section 14).
const MOST_AT_ONCE: usize = 100;
/// Items of a page where the call does not say, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// Longest wait for a turn and a change: a file is written in milliseconds, so by then another replica holds the directory.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

impl Door {
    pub(super) async fn detected_text(
        &self,
        request: wire::DetectProtectedTextRequest,
    ) -> Result<wire::DetectProtectedTextResponse, SafetyError> {
        let wire::DetectProtectedTextRequest { text } = request;
        let detected = self.screen.protected_text(text).await?;
        Ok(wire::DetectProtectedTextResponse { detected })
    }

    pub(super) async fn detected_code(
        &self,
        request: wire::DetectProtectedCodeRequest,
    ) -> Result<wire::DetectProtectedCodeResponse, SafetyError> {
        let wire::DetectProtectedCodeRequest { code } = request;
        let found = self.screen.protected_code(code).await?;
        let citation =
            |Citation { license, source_urls }| wire::CodeCitation { license, source_urls };
        Ok(wire::DetectProtectedCodeResponse {
            detected: !found.is_empty(),
            citations: found.into_iter().map(citation).collect(),
        })
    }

    pub(super) fn listed_blocklists(&self) -> wire::ListBlocklistsResponse {
        let now = self.screen.blocklists.now();
        wire::ListBlocklistsResponse { blocklists: now.all().map(|list| to_wire(list)).collect() }
    }

    pub(super) fn got_blocklist(
        &self,
        request: &wire::GetBlocklistRequest,
    ) -> Result<wire::GetBlocklistResponse, SafetyError> {
        let wire::GetBlocklistRequest { name } = request;
        let list = self.screen.blocklists.get(name)?;
        Ok(wire::GetBlocklistResponse { blocklist: Some(to_wire(&list)) })
    }

    pub(super) async fn upserted_blocklist(
        &self,
        request: wire::UpsertBlocklistRequest,
    ) -> Result<wire::UpsertBlocklistResponse, SafetyError> {
        let wire::UpsertBlocklistRequest { name, description } = request;
        let description = match description {
            None => Description::Keep,
            Some(wire::DescriptionChange { value }) => Description::Set(value),
        };
        if let Description::Set(Some(text)) = &description
            && text.chars().count() > LONGEST_DESCRIPTION
        {
            let message = format!("a description has at most {LONGEST_DESCRIPTION} characters");
            return Err(SafetyError::invalid("description", message));
        }
        let (list, created) = self.changed(move |lists| lists.upsert(&name, description)).await?;
        Ok(wire::UpsertBlocklistResponse { blocklist: Some(to_wire(&list)), created })
    }

    pub(super) async fn deleted_blocklist(
        &self,
        request: wire::DeleteBlocklistRequest,
    ) -> Result<wire::DeleteBlocklistResponse, SafetyError> {
        let wire::DeleteBlocklistRequest { name } = request;
        self.changed(move |lists| lists.delete(&name)).await?;
        Ok(wire::DeleteBlocklistResponse {})
    }

    pub(super) async fn upserted_items(
        &self,
        request: wire::UpsertBlocklistItemsRequest,
    ) -> Result<wire::UpsertBlocklistItemsResponse, SafetyError> {
        let wire::UpsertBlocklistItemsRequest { name, items } = request;
        check_count("items", items.len())?;
        let item = |item| {
            let wire::NewBlocklistItem { text, description, is_regex } = item;
            NewItem { text, description, is_regex }
        };
        let items = items.into_iter().map(item).collect();
        let items = self.changed(move |lists| lists.upsert_items(&name, items)).await?;
        Ok(wire::UpsertBlocklistItemsResponse { items: items.iter().map(item_to_wire).collect() })
    }

    pub(super) async fn removed_items(
        &self,
        request: wire::RemoveBlocklistItemsRequest,
    ) -> Result<wire::RemoveBlocklistItemsResponse, SafetyError> {
        let wire::RemoveBlocklistItemsRequest { name, item_ids } = request;
        check_count("item_ids", item_ids.len())?;
        self.changed(move |lists| lists.remove_items(&name, &item_ids)).await?;
        Ok(wire::RemoveBlocklistItemsResponse {})
    }

    pub(super) fn listed_items(
        &self,
        request: &wire::ListBlocklistItemsRequest,
    ) -> Result<wire::ListBlocklistItemsResponse, SafetyError> {
        let wire::ListBlocklistItemsRequest { name, skip, page_size } = request;
        let list = self.screen.blocklists.get(name)?;
        let skip = usize::try_from(*skip).unwrap_or(usize::MAX);
        let size = match usize::try_from(*page_size).unwrap_or(usize::MAX) {
            0 => PAGE,
            size => size.min(LARGEST_PAGE),
        };
        let items: Vec<_> = list.items.iter().skip(skip).take(size).map(item_to_wire).collect();
        let more = list.items.len() > skip.saturating_add(items.len());
        Ok(wire::ListBlocklistItemsResponse { items, more })
    }

    pub(super) fn got_item(
        &self,
        request: &wire::GetBlocklistItemRequest,
    ) -> Result<wire::GetBlocklistItemResponse, SafetyError> {
        let wire::GetBlocklistItemRequest { name, item_id } = request;
        let list = self.screen.blocklists.get(name)?;
        let item = list.item(item_id).ok_or_else(|| SafetyError::NoItem { list: name.clone() })?;
        Ok(wire::GetBlocklistItemResponse { item: Some(item_to_wire(item)) })
    }

    /// Changes the lists when it is this call's turn. A caller who leaves while a change is made does not undo it.
    async fn changed<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Blocklists) -> Result<T, SafetyError> + Send + 'static,
    ) -> Result<T, SafetyError> {
        let stopped = || SafetyError::Busy(OnnxError::Stopped);
        let made = async {
            let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| stopped())?;
            let lists = Arc::clone(&self.screen.blocklists);
            let change = move || {
                let made = change(&lists);
                drop(turn);
                made
            };
            self.screen.tasks.spawn_blocking(change).await.map_err(|_| stopped())?
        };
        tokio::time::timeout(CHANGE_TIMEOUT, made).await.map_err(|_| SafetyError::Changing)?
    }
}

fn check_count(target: &str, count: usize) -> Result<(), SafetyError> {
    if (1..=MOST_AT_ONCE).contains(&count) {
        return Ok(());
    }
    let message = format!("one call takes 1 to {MOST_AT_ONCE} items, found {count}");
    Err(SafetyError::invalid(target, message))
}

fn to_wire(list: &Blocklist) -> wire::Blocklist {
    wire::Blocklist { name: list.name.clone(), description: list.description.clone() }
}

fn item_to_wire(item: &Item) -> wire::BlocklistItem {
    let Item { id, text, kind, description } = item;
    wire::BlocklistItem {
        id: id.clone(),
        text: text.clone(),
        description: description.clone(),
        is_regex: *kind == Kind::Regex,
    }
}
