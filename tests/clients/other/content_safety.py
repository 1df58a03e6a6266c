"""azure-ai-contentsafety, in whichever version the interpreter holds, from text to the end of a blocklist's life."""

from pathlib import Path

from azure.ai.contentsafety import BlocklistClient, ContentSafetyClient
from azure.ai.contentsafety.models import (
    AddOrUpdateTextBlocklistItemsOptions,
    AnalyzeImageOptions,
    AnalyzeTextOptions,
    ImageData,
    RemoveTextBlocklistItemsOptions,
    TextBlocklist,
    TextBlocklistItem,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.rest import HttpRequest

from report import asked, report

ASK = asked()
NAME = ASK["blocklist"]


def client(key=ASK["key"]):
    return ContentSafetyClient(ASK["endpoint"], AzureKeyCredential(key))


LISTS = BlocklistClient(ASK["endpoint"], AzureKeyCredential(ASK["key"]))


def severities(answer):
    return {str(getattr(c.category, "value", c.category)): c.severity for c in answer.categories_analysis}


def text(text=ASK["blocked"], key=ASK["key"], **options):
    seen = []
    answer = client(key).analyze_text(AnalyzeTextOptions(text=text, **options), raw_response_hook=seen.append)
    headers = seen[0].http_request.headers
    return {
        "severities": severities(answer),
        "matches": [[m.blocklist_name, m.blocklist_item_id, m.blocklist_item_text] for m in answer.blocklists_match or []],
        "sent": sorted(h.lower() for h in headers if h.lower() in ("ocp-apim-subscription-key", "api-key", "authorization")),
    }


def image():
    content = Path(ASK["cat"]).read_bytes()
    return severities(client().analyze_image(AnalyzeImageOptions(image=ImageData(content=content))))


def shield_over_rest():
    request = HttpRequest(
        "POST",
        "/text:shieldPrompt",
        params={"api-version": "2024-09-01"},
        json={"userPrompt": ASK["attack"], "documents": ["The train leaves at nine."]},
    )
    answer = client().send_request(request)
    answer.raise_for_status()
    return answer.json()


def shield():
    from azure.ai.contentsafety.models import ShieldPromptOptions

    answer = client().shield_prompt(ShieldPromptOptions(user_prompt=ASK["attack"], documents=["The train leaves at nine."]))
    return [answer.user_prompt_analysis.attack_detected, [d.attack_detected for d in answer.documents_analysis]]


def status_and(call, *arguments):
    """What a call answers, with the HTTP status that the client keeps to itself."""
    seen = []
    answer = call(*arguments, raw_response_hook=seen.append)
    return seen[-1].http_response.status_code, answer


def put(description):
    wanted = TextBlocklist(blocklist_name=NAME, description=description)
    status, made = status_and(LISTS.create_or_update_text_blocklist, NAME, wanted)
    return [status, made.blocklist_name, made.description]


def add(*texts):
    options = AddOrUpdateTextBlocklistItemsOptions(
        blocklist_items=[TextBlocklistItem(text=text, description=f"about {text}") for text in texts]
    )
    added = LISTS.add_or_update_blocklist_items(NAME, options).blocklist_items
    return [[item.blocklist_item_id, item.text, item.description] for item in added]


def items(**options):
    return [[item.blocklist_item_id, item.text] for item in LISTS.list_text_blocklist_items(NAME, **options)]


def item():
    wanted = items()[0][0]
    found = LISTS.get_text_blocklist_item(NAME, wanted)
    return [found.blocklist_item_id == wanted, found.text, found.description]


def remove_first():
    first = items()[0][0]
    options = RemoveTextBlocklistItemsOptions(blocklist_item_ids=[first])
    status, _ = status_and(LISTS.remove_blocklist_items, NAME, options)
    return [status, first in [found[0] for found in items()], len(items())]


def get():
    found = LISTS.get_text_blocklist(NAME)
    return [found.blocklist_name, found.description]


report(
    {
        "text": text,
        "text of one category": lambda: text(categories=["Violence"]),
        "eight severities": lambda: text(output_type="EightSeverityLevels"),
        "harmless": lambda: text("The train leaves at nine."),
        "image": image,
        "image behind a URL": lambda: client().analyze_image(
            AnalyzeImageOptions(image=ImageData(blob_url="https://example.org/cat.jpg"))
        ),
        "shield over REST": shield_over_rest,
        "shield": shield,
        "wrong key": lambda: text(key="wrong"),
        "text too long": lambda: text("a" * 10_001),
        "unknown blocklist": lambda: text(blocklist_names=["never-made"]),
        # The life of a blocklist, in order.
        "absent": get,
        "create": lambda: put("first"),
        "update": lambda: put("second"),
        "get": get,
        "list": lambda: [found.blocklist_name for found in LISTS.list_text_blocklists()],
        "add": lambda: add("wolpertinger", "jackalope", "drop bear"),
        "items": items,
        "items in pages": lambda: items(maxpagesize=2),
        "items from the second": lambda: items(skip=1, top=1),
        "item": item,
        "match": lambda: text("Beware of the Wolpertinger in the woods.", blocklist_names=[NAME])["matches"],
        "match halts": lambda: text("Beware of the jackalope.", blocklist_names=[NAME], halt_on_blocklist_hit=True),
        "no match": lambda: text("The train leaves at nine.", blocklist_names=[NAME])["matches"],
        "remove": remove_first,
        "delete": lambda: status_and(LISTS.delete_text_blocklist, NAME)[0],
        "gone": get,
        "match gone": lambda: text(blocklist_names=[NAME]),
        "delete again": lambda: LISTS.delete_text_blocklist(NAME),
    }
)
