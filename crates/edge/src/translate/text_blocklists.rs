//! The routes under `/contentsafety/text/blocklists` ⇄ gRPC.

use api_types::rest::text_blocklists::{
    AddOrUpdateBlocklistItemsRequest, BlocklistName, DescriptionPatch, NewBlocklistItem,
    PagedTextBlocklists, Paging, PatchBlocklistRequest, RemoveBlocklistItemsRequest, TextBlocklist,
    TextBlocklistItem,
};
use api_types::rpc::content_safety as rpc;

/// All lists.
#[must_use]
pub fn lists_from_rpc(response: rpc::ListBlocklistsResponse) -> PagedTextBlocklists {
    let rpc::ListBlocklistsResponse { blocklists } = response;
    PagedTextBlocklists { value: blocklists.into_iter().map(list_from_rpc).collect() }
}

/// One list.
#[must_use]
pub fn get_to_rpc(name: BlocklistName) -> rpc::GetBlocklistRequest {
    rpc::GetBlocklistRequest { name: name.into_string() }
}

/// The answer about one list.
#[must_use]
pub fn get_from_rpc(response: rpc::GetBlocklistResponse) -> TextBlocklist {
    let rpc::GetBlocklistResponse { blocklist } = response;
    list_from_rpc(blocklist.unwrap_or_default())
}

/// A patch of a list.
#[must_use]
pub fn patch_to_rpc(
    name: BlocklistName,
    request: PatchBlocklistRequest,
) -> rpc::UpsertBlocklistRequest {
    let PatchBlocklistRequest { description } = request;
    let change = |value| Some(rpc::DescriptionChange { value });
    let description = match description {
        DescriptionPatch::Keep => None,
        DescriptionPatch::Remove => change(None),
        DescriptionPatch::Set(text) => change(Some(text)),
    };
    rpc::UpsertBlocklistRequest { name: name.into_string(), description }
}

/// The list after a patch, and whether the patch made it.
#[must_use]
pub fn patch_from_rpc(response: rpc::UpsertBlocklistResponse) -> (TextBlocklist, bool) {
    let rpc::UpsertBlocklistResponse { blocklist, created } = response;
    (list_from_rpc(blocklist.unwrap_or_default()), created)
}

/// The end of a list.
#[must_use]
pub fn delete_to_rpc(name: BlocklistName) -> rpc::DeleteBlocklistRequest {
    rpc::DeleteBlocklistRequest { name: name.into_string() }
}

/// New items.
#[must_use]
pub fn add_to_rpc(
    name: BlocklistName,
    request: AddOrUpdateBlocklistItemsRequest,
) -> rpc::UpsertBlocklistItemsRequest {
    let AddOrUpdateBlocklistItemsRequest { blocklist_items } = request;
    let item = |item| {
        let NewBlocklistItem { text, description, is_regex } = item;
        rpc::NewBlocklistItem { text, description, is_regex }
    };
    rpc::UpsertBlocklistItemsRequest {
        name: name.into_string(),
        items: blocklist_items.into_iter().map(item).collect(),
    }
}

/// The items that were added.
#[must_use]
pub fn add_from_rpc(response: rpc::UpsertBlocklistItemsResponse) -> Vec<TextBlocklistItem> {
    let rpc::UpsertBlocklistItemsResponse { items } = response;
    items.into_iter().map(item_from_rpc).collect()
}

/// Items to remove.
#[must_use]
pub fn remove_to_rpc(
    name: BlocklistName,
    request: RemoveBlocklistItemsRequest,
) -> rpc::RemoveBlocklistItemsRequest {
    let RemoveBlocklistItemsRequest { blocklist_item_ids } = request;
    rpc::RemoveBlocklistItemsRequest { name: name.into_string(), item_ids: blocklist_item_ids }
}

/// A page of items: no more than are still wanted.
#[must_use]
pub fn page_to_rpc(name: &BlocklistName, paging: Paging) -> rpc::ListBlocklistItemsRequest {
    let Paging { top, skip, page } = paging;
    // 0 is the service's own size of a page.
    let page_size = match (top, page) {
        (Some(top), Some(page)) => top.min(page),
        (Some(count), None) | (None, Some(count)) => count,
        (None, None) => 0,
    };
    rpc::ListBlocklistItemsRequest { name: name.as_str().to_owned(), skip, page_size }
}

/// A page of items, and what asks for the next one; `paging` asked for this one.
#[must_use]
pub fn page_from_rpc(
    response: rpc::ListBlocklistItemsResponse,
    paging: Paging,
) -> (Vec<TextBlocklistItem>, Option<Paging>) {
    let rpc::ListBlocklistItemsResponse { mut items, more } = response;
    if paging.top == Some(0) {
        // Of nothing wanted there is no page; the call said whether the list is there.
        items.clear();
    }
    let next = paging.after(u32::try_from(items.len()).unwrap_or(u32::MAX));
    let next = (more && !items.is_empty() && next.top != Some(0)).then_some(next);
    (items.into_iter().map(item_from_rpc).collect(), next)
}

/// One item.
#[must_use]
pub fn item_to_rpc(name: BlocklistName, item_id: String) -> rpc::GetBlocklistItemRequest {
    rpc::GetBlocklistItemRequest { name: name.into_string(), item_id }
}

/// The answer about one item.
#[must_use]
pub fn get_item_from_rpc(response: rpc::GetBlocklistItemResponse) -> TextBlocklistItem {
    let rpc::GetBlocklistItemResponse { item } = response;
    item_from_rpc(item.unwrap_or_default())
}

fn list_from_rpc(list: rpc::Blocklist) -> TextBlocklist {
    let rpc::Blocklist { name, description } = list;
    TextBlocklist { blocklist_name: name, description }
}

fn item_from_rpc(item: rpc::BlocklistItem) -> TextBlocklistItem {
    let rpc::BlocklistItem { id, text, description, is_regex } = item;
    TextBlocklistItem { blocklist_item_id: id, description, text, is_regex }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name() -> BlocklistName {
        BlocklistName::parse("words").unwrap()
    }

    #[test]
    fn a_description_is_kept_removed_or_set() {
        let change = |description| {
            let request = PatchBlocklistRequest { description };
            patch_to_rpc(name(), request).description.map(|change| change.value)
        };
        assert_eq!(change(DescriptionPatch::Keep), None);
        assert_eq!(change(DescriptionPatch::Remove), Some(None));
        assert_eq!(change(DescriptionPatch::Set("x".into())), Some(Some("x".into())));
    }

    #[test]
    fn an_item_says_that_it_is_a_regular_expression_only_where_it_is() {
        let item = |is_regex, description| {
            let description = Option::map(description, str::to_owned);
            let item =
                rpc::BlocklistItem { id: "1".into(), text: "x".into(), description, is_regex };
            serde_json::to_value(item_from_rpc(item)).unwrap()
        };
        assert_eq!(item(false, None), json!({"blocklistItemId": "1", "text": "x"}));
        assert_eq!(
            item(true, Some("y")),
            json!({"blocklistItemId": "1", "description": "y", "text": "x", "isRegex": true})
        );
    }

    #[test]
    fn pages_end_where_the_list_or_the_wish_does() {
        let pages = |top, page| {
            let mut paging = Paging { top, skip: 0, page };
            let mut sizes = Vec::new();
            loop {
                // A list of five.
                let asked = page_to_rpc(&name(), paging);
                let size = if asked.page_size == 0 { 100 } else { asked.page_size };
                let count = size.min(5_u32.saturating_sub(asked.skip));
                let items = vec![rpc::BlocklistItem::default(); usize::try_from(count).unwrap()];
                let more = asked.skip + count < 5;
                let (items, next) =
                    page_from_rpc(rpc::ListBlocklistItemsResponse { items, more }, paging);
                sizes.push(items.len());
                match next {
                    Some(next) => paging = next,
                    None => return sizes,
                }
            }
        };
        assert_eq!(pages(None, None), [5]);
        assert_eq!(pages(None, Some(2)), [2, 2, 1]);
        assert_eq!(pages(Some(3), Some(2)), [2, 1]);
        assert_eq!(pages(Some(3), None), [3]);
        assert_eq!(pages(Some(9), Some(5)), [5]);
        assert_eq!(pages(Some(0), None), [0]);
    }
}
