//! The routes under `/contentsafety/text/blocklists` (section 14).
//!
//! Names are camelCase; unknown properties are ignored, as the service does. Only what needs no knowledge of the lists is
//! checked here: a regular expression is compiled by the service that matches it.

use super::json::{At, Object, boolean, filled, list, object, sized, string};
use crate::{ErrorCode, Fault};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest text of an item, in code points.
const LONGEST_TEXT: usize = 128;
/// Longest description of a list or an item, in code points.
const LONGEST_DESCRIPTION: usize = 1024;
/// Most items of one call.
const MOST_ITEMS: usize = 100;
/// Longest name of a list.
const LONGEST_NAME: usize = 64;
/// Largest number that `top` and `skip` take: those of the service are 32-bit integers.
const LARGEST_COUNT: u32 = i32::MAX.unsigned_abs();

/// The name of a list, valid by the contract's pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlocklistName(String);

impl BlocklistName {
    /// What `parse` takes, as a regular expression for descriptions.
    pub const PATTERN: &str = "^[0-9A-Za-z._~-]{1,64}$";

    /// Reads a segment of a path, decoded.
    ///
    /// # Errors
    /// `InvalidResourceName` for anything but 1 to 64 of letters, digits and `._~-`.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) {
            let message = format!(
                "the name of a blocklist must have 1 to {LONGEST_NAME} letters, digits or `._~-`"
            );
            return Err(
                Fault::new(ErrorCode::InvalidResourceName, message).with_target("blocklistName")
            );
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A list; the answer of `PATCH` and `GET`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextBlocklist {
    /// Its name.
    pub blocklist_name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// An item of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextBlocklistItem {
    /// Given by the service.
    pub blocklist_item_id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is looked for.
    pub text: String,
    /// Whether the text is a regular expression; absent where it is words.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_regex: bool,
}

/// A page of lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PagedTextBlocklists {
    /// In the order of their names; always all of them.
    pub value: Vec<TextBlocklist>,
}

/// A page of items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PagedTextBlocklistItems {
    /// In the order in which they were added.
    pub value: Vec<TextBlocklistItem>,
    /// Where the next page is, as an absolute URL; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_link: Option<String>,
}

/// The items that were added; the answer of `:addOrUpdateBlocklistItems`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlocklistItems {
    /// In the order of the request.
    pub blocklist_items: Vec<TextBlocklistItem>,
}

/// `PATCH` of a list: a JSON merge patch (RFC 7396).
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct PatchBlocklistRequest {
    /// What becomes of the description: absent keeps it, null removes it.
    #[schemars(with = "Option<String>", length(max = LONGEST_DESCRIPTION))]
    pub description: DescriptionPatch,
}

/// What becomes of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescriptionPatch {
    /// It was absent: it stays as it is.
    Keep,
    /// It was null: there is none any more.
    Remove,
    /// The new one.
    Set(String),
}

impl PatchBlocklistRequest {
    /// Reads a body for the list `name`; where the body names a list too, it must be the same.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8], name: &BlocklistName) -> Result<Self, Fault> {
        let body = object(body)?;
        let removed = body.get("description").is_some_and(Value::is_null);
        let mut fields = Object::root(body);
        fields.optional("blocklistName", |value, at| {
            if string(value, at)? == name.as_str() {
                return Ok(());
            }
            Err(at.fault(format_args!("must be `{}` as in the path", name.as_str())))
        })?;
        let description = match fields.optional("description", description)? {
            Some(text) => DescriptionPatch::Set(text),
            None if removed => DescriptionPatch::Remove,
            None => DescriptionPatch::Keep,
        };
        Ok(Self { description })
    }
}

/// `:addOrUpdateBlocklistItems`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct AddOrUpdateBlocklistItemsRequest {
    /// 1 to 100.
    #[schemars(length(min = 1, max = MOST_ITEMS))]
    pub blocklist_items: Vec<NewBlocklistItem>,
}

/// An item that a caller adds. An id that comes with it is read-only and ignored.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct NewBlocklistItem {
    /// 1 to 128 code points.
    #[schemars(length(min = 1, max = LONGEST_TEXT))]
    pub text: String,
    /// At most 1,024 code points.
    #[schemars(length(max = LONGEST_DESCRIPTION))]
    pub description: Option<String>,
    /// Whether the text is a regular expression.
    #[schemars(with = "Option<bool>")]
    pub is_regex: bool,
}

impl AddOrUpdateBlocklistItemsRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        let blocklist_items = fields.required("blocklistItems", list(1..=MOST_ITEMS, new_item))?;
        Ok(Self { blocklist_items })
    }
}

fn new_item(value: Value, at: At<'_>) -> Result<NewBlocklistItem, Fault> {
    let mut fields = Object::read(value, at)?;
    Ok(NewBlocklistItem {
        text: fields.required("text", sized(1..=LONGEST_TEXT))?,
        description: fields.optional("description", description)?,
        is_regex: fields.optional("isRegex", boolean)?.unwrap_or_default(),
    })
}

fn description(value: Value, at: At<'_>) -> Result<String, Fault> {
    sized(0..=LONGEST_DESCRIPTION)(value, at)
}

/// `:removeBlocklistItems`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub struct RemoveBlocklistItemsRequest {
    /// 1 to 100.
    #[schemars(length(min = 1, max = MOST_ITEMS), inner(length(min = 1)))]
    pub blocklist_item_ids: Vec<String>,
}

impl RemoveBlocklistItemsRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending field as target.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Object::root(object(body)?);
        let blocklist_item_ids =
            fields.required("blocklistItemIds", list(1..=MOST_ITEMS, filled))?;
        Ok(Self { blocklist_item_ids })
    }
}

/// The query of `GET .../blocklistItems`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Paging {
    /// Items to answer on all pages together; none for all there are.
    pub top: Option<u32>,
    /// Items to pass over.
    pub skip: u32,
    /// Items of a page at most; none for the service's own size.
    pub page: Option<u32>,
}

impl Paging {
    /// Reads a query, such as `api-version=2024-09-01&top=5`; other parameters are passed over.
    ///
    /// # Errors
    /// `InvalidRequest` with the offending parameter as target.
    pub fn parse(query: &str) -> Result<Self, Fault> {
        let mut paging = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "top" => paging.top = Some(count(name, value, 0)?),
                "skip" => paging.skip = count(name, value, 0)?,
                "maxpagesize" => paging.page = Some(count(name, value, 1)?),
                _ => {}
            }
        }
        Ok(paging)
    }

    /// What asks for the page after one with `count` items.
    #[must_use]
    pub fn after(self, count: u32) -> Self {
        Self {
            top: self.top.map(|top| top.saturating_sub(count)),
            skip: self.skip.saturating_add(count).min(LARGEST_COUNT),
            page: self.page,
        }
    }

    /// As a query, beginning with `&` where it says anything.
    #[must_use]
    pub fn to_query(self) -> String {
        let Self { top, skip, page } = self;
        let parameters = [("top", top), ("skip", Some(skip)), ("maxpagesize", page)];
        let said = parameters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        said.map(|(name, value)| format!("&{name}={value}")).collect()
    }
}

fn count(name: &str, value: &str, least: u32) -> Result<u32, Fault> {
    let read = value.parse().ok().filter(|count| (least..=LARGEST_COUNT).contains(count));
    read.ok_or_else(|| {
        let expected = format!("`{name}` must be an integer from {least} to {LARGEST_COUNT}");
        Fault::invalid(name, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pattern_of_descriptions_says_what_is_taken() {
        let class = BlocklistName::PATTERN.strip_prefix("^[0-9A-Za-z").unwrap();
        let (marks, length) = class.split_once(']').unwrap();
        assert_eq!(length, format!("{{1,{LONGEST_NAME}}}$"));
        for mark in (0..=127_u8).map(char::from).filter(|c| !c.is_ascii_alphanumeric()) {
            let taken = BlocklistName::parse(&mark.to_string()).is_ok();
            assert_eq!(taken, marks.contains(mark), "{mark:?}");
        }
    }

    fn name() -> BlocklistName {
        BlocklistName::parse("words").unwrap()
    }

    fn bytes(body: &Value) -> Vec<u8> {
        body.to_string().into_bytes()
    }

    fn target<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> String {
        outcome.unwrap_err().target.unwrap_or_default()
    }

    #[test]
    fn names_are_those_of_the_contract() {
        for good in ["a", "A.b_9~-", &"x".repeat(64)] {
            assert!(BlocklistName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "é", "a:b", &"x".repeat(65)] {
            let fault = BlocklistName::parse(bad).unwrap_err();
            assert_eq!(fault.code, ErrorCode::InvalidResourceName, "{bad}");
        }
    }

    #[test]
    fn a_patch_keeps_removes_or_sets_the_description() {
        let patch = |body: Value| PatchBlocklistRequest::parse(&bytes(&body), &name());
        let of = |body| patch(body).unwrap().description;
        assert_eq!(of(json!({})), DescriptionPatch::Keep);
        assert_eq!(of(json!({"description": null})), DescriptionPatch::Remove);
        assert_eq!(
            of(json!({"description": "x", "blocklistName": "words", "etag": 1})),
            DescriptionPatch::Set("x".into())
        );
        assert_eq!(target(patch(json!({"blocklistName": "other"}))), "blocklistName");
        assert_eq!(target(patch(json!({"description": "x".repeat(1025)}))), "description");
        assert!(patch(json!([])).is_err());
    }

    #[test]
    fn items_are_bounded_and_each_offence_is_named() {
        let parse = |items: Value| {
            AddOrUpdateBlocklistItemsRequest::parse(&bytes(&json!({"blocklistItems": items})))
        };
        let longest = "é".repeat(128);
        let items = parse(json!([{"text": longest, "isRegex": true}])).unwrap().blocklist_items;
        assert!(items[0].is_regex && items[0].description.is_none());
        assert_eq!(
            parse(json!(vec![json!({"text": "x"}); 100])).unwrap().blocklist_items.len(),
            100
        );
        for (items, expected) in [
            (json!([]), "blocklistItems"),
            (json!(vec![json!({"text": "x"}); 101]), "blocklistItems"),
            (json!([{"text": "x"}, {"description": "y"}]), "blocklistItems.1.text"),
            (json!([{"text": ""}]), "blocklistItems.0.text"),
            (json!([{"text": "x".repeat(129)}]), "blocklistItems.0.text"),
            (json!([{"text": "x", "isRegex": 1}]), "blocklistItems.0.isRegex"),
            (
                json!([{"text": "x", "description": "y".repeat(1025)}]),
                "blocklistItems.0.description",
            ),
        ] {
            assert_eq!(target(parse(items)), expected);
        }
    }

    #[test]
    fn ids_to_remove_are_bounded() {
        let parse = |ids: Value| {
            RemoveBlocklistItemsRequest::parse(&bytes(&json!({"blocklistItemIds": ids})))
        };
        assert_eq!(parse(json!(["a", "b"])).unwrap().blocklist_item_ids, ["a", "b"]);
        assert_eq!(target(parse(json!([]))), "blocklistItemIds");
        assert_eq!(target(parse(json!([1]))), "blocklistItemIds.0");
        assert_eq!(target(parse(json!(vec!["x"; 101]))), "blocklistItemIds");
    }

    #[test]
    fn a_page_says_how_to_ask_for_the_next() {
        let paging = Paging::parse("api-version=2024-09-01&top=5&skip=1&maxpagesize=2").unwrap();
        assert_eq!(paging, Paging { top: Some(5), skip: 1, page: Some(2) });
        assert_eq!(paging.after(2).to_query(), "&top=3&skip=3&maxpagesize=2");
        assert_eq!(Paging::parse("x=1&y").unwrap().to_query(), "&skip=0");
        for (query, expected) in [
            ("top=-1", "top"),
            ("skip=x", "skip"),
            ("maxpagesize=0", "maxpagesize"),
            ("top=2147483648", "top"),
            ("skip=", "skip"),
        ] {
            assert_eq!(target(Paging::parse(query)), expected);
        }
    }
}
