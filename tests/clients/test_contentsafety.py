"""The official Content Safety client against `/contentsafety`: judgements, and the life of a blocklist (vector 41)."""

import pytest
from azure.ai.contentsafety import BlocklistClient, ContentSafetyClient
from azure.ai.contentsafety.models import (
    AddOrUpdateTextBlocklistItemsOptions,
    AnalyzeImageOptions,
    AnalyzeTextOptions,
    AnalyzeTextOutputType,
    ImageData,
    RemoveTextBlocklistItemsOptions,
    TextBlocklist,
    TextBlocklistItem,
    TextCategory,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from conftest import ROOT

CAT = ROOT / "tests/clients/data/cat.jpg"


@pytest.fixture
def client(koine):
    with ContentSafetyClient(koine.endpoint, AzureKeyCredential(koine.key)) as client:
        yield client


@pytest.fixture
def blocklists(koine):
    with BlocklistClient(koine.endpoint, AzureKeyCredential(koine.key)) as client:
        yield client


def test_a_text_is_judged_in_four_categories(client):
    answer = client.analyze_text(AnalyzeTextOptions(text="You chop tomatoes and cut them into cubes."))
    assert [(c.category, c.severity) for c in answer.categories_analysis] == [(c.value, 0) for c in TextCategory]
    fine = AnalyzeTextOptions(
        text="I will beat you until you bleed and break every bone in your body.",
        categories=[TextCategory.VIOLENCE],
        output_type=AnalyzeTextOutputType.EIGHT_SEVERITY_LEVELS,
    )
    answer = client.analyze_text(fine)
    assert [c.category for c in answer.categories_analysis] == ["Violence"]
    assert answer.categories_analysis[0].severity >= 4


def test_an_image_is_judged(client):
    answer = client.analyze_image(AnalyzeImageOptions(image=ImageData(content=CAT.read_bytes())))
    assert [(c.category, c.severity) for c in answer.categories_analysis] == [("Sexual", 0)]
    with pytest.raises(HttpResponseError) as refused:
        client.analyze_image(AnalyzeImageOptions(image=ImageData(blob_url="https://example.org/cat.jpg")))
    assert (refused.value.status_code, refused.value.error.code) == (400, "InvalidRequestBody")


def test_a_blocklist_lives_from_its_making_to_its_removal(client, blocklists):
    name = "project-names"
    statuses = []

    def options(**more):
        return {"raw_response_hook": lambda response: statuses.append(response.http_response.status_code), **more}

    made = blocklists.create_or_update_text_blocklist(
        name, TextBlocklist(blocklist_name=name, description="Names"), **options()
    )
    assert made.description == "Names"
    changed = blocklists.create_or_update_text_blocklist(name, {"description": "Project names"}, **options())
    assert changed.description == "Project names"
    assert statuses == [201, 200]
    assert name in [known.blocklist_name for known in blocklists.list_text_blocklists()]
    assert blocklists.get_text_blocklist(name).description == "Project names"

    texts = [f"falcon {n}" for n in range(5)]
    items = [TextBlocklistItem(text=text, description="secret") for text in texts]
    added = blocklists.add_or_update_blocklist_items(name, AddOrUpdateTextBlocklistItemsOptions(blocklist_items=items))
    ids = [item.blocklist_item_id for item in added.blocklist_items]
    assert blocklists.get_text_blocklist_item(name, ids[2]).text == "falcon 2"
    # Page by page, along absolute links.
    assert [item.text for item in blocklists.list_text_blocklist_items(name, maxpagesize=2)] == texts
    assert [item.text for item in blocklists.list_text_blocklist_items(name, top=3, skip=1, maxpagesize=2)] == texts[1:4]

    wanted = AnalyzeTextOptions(text="What is Falcon 3?", blocklist_names=[name], halt_on_blocklist_hit=True)
    answer = client.analyze_text(wanted)
    hits = [(hit.blocklist_name, hit.blocklist_item_id, hit.blocklist_item_text) for hit in answer.blocklists_match]
    assert hits == [(name, ids[3], "falcon 3")]
    assert answer.categories_analysis == []

    blocklists.remove_blocklist_items(name, RemoveTextBlocklistItemsOptions(blocklist_item_ids=[ids[3]]))
    assert client.analyze_text(wanted).blocklists_match == []
    blocklists.delete_text_blocklist(name)
    for missing in (
        lambda: blocklists.delete_text_blocklist(name),
        lambda: blocklists.get_text_blocklist(name),
        lambda: client.analyze_text(wanted),
    ):
        with pytest.raises(ResourceNotFoundError) as refused:
            missing()
        assert refused.value.error.code == "ResourceNotFound"
        assert refused.value.response.headers["x-ms-error-code"] == "ResourceNotFound"
