"""The clients for JavaScript; they run in node/*.mjs."""

import base64
import json
import re
import struct

import driver
import pytest
from asked import ANSWER, CHAT, EMBED, IMAGES, WIDTH

AZURE_REST = pytest.mark.client("@azure-rest/ai-inference, JavaScript")
SAFETY = pytest.mark.client("@azure-rest/ai-content-safety, JavaScript")


@pytest.fixture(scope="module")
def inference(standalone):
    return driver.node("inference.mjs", standalone)


def answered(seen, case):
    """The body of an answer that the SDK takes for a success."""
    answer = seen.value(case)
    assert (answer["status"], answer["unexpected"]) == ("200", False), answer
    return answer["body"]


def refused(seen, case, status):
    answer = seen.value(case)
    assert (answer["status"], answer["unexpected"]) == (status, True), answer
    return answer["body"]


def events(seen, case):
    """The events of a stream, which must end by the word that ends it: some clients wait for it for ever."""
    *updates, last = seen.value(case)
    assert last == "[DONE]"
    return [json.loads(update) for update in updates]


@AZURE_REST
@pytest.mark.shows("chat")
def test_rest_chat(inference):
    body = answered(inference, "chat")
    assert ANSWER in body["choices"][0]["message"]["content"]
    assert isinstance(body["created"], int)
    assert answered(inference, "under /models")["choices"] == body["choices"]
    assert "allowInsecureConnection" in inference.raised("http without leave")["message"]


@AZURE_REST
@pytest.mark.shows("streaming")
def test_rest_stream(inference):
    updates = events(inference, "stream")
    # The sample goes through `choices` of every event.
    assert all(len(update["choices"]) == 1 and "delta" in update["choices"][0] for update in updates)
    assert all(isinstance(update["created"], int) for update in updates)
    text = "".join(update["choices"][0]["delta"].get("content") or "" for update in updates)
    assert text == answered(inference, "chat")["choices"][0]["message"]["content"]
    assert updates[-1]["choices"][0]["finish_reason"] == "stop"
    assert updates[-1]["usage"]["completion_tokens"] > 0


@AZURE_REST
@pytest.mark.shows("tools")
def test_rest_tools(inference):
    choice = answered(inference, "tools")["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert choice["finish_reason"] == "tool_calls" and call["function"]["name"] == "get_weather"
    assert "city" in json.loads(call["function"]["arguments"])


@AZURE_REST
@pytest.mark.shows("streamed tools")
def test_rest_streamed_tools(inference):
    pieces = [
        piece
        for update in events(inference, "streamed tools")
        for piece in update["choices"][0]["delta"].get("tool_calls", [])
    ]
    assert pieces[0]["function"]["name"] == "get_weather" and pieces[0]["id"] and pieces[0]["index"] == 0
    assert not any("id" in piece or "name" in piece["function"] for piece in pieces[1:])
    assert "city" in json.loads("".join(piece["function"].get("arguments", "") for piece in pieces))


@AZURE_REST
@pytest.mark.shows("structured output")
def test_rest_structured_output(inference):
    free = json.loads(answered(inference, "json object")["choices"][0]["message"]["content"])
    held = json.loads(answered(inference, "json schema")["choices"][0]["message"]["content"])
    assert isinstance(free, dict) and set(held) == {"city", "inhabitants"}


@AZURE_REST
@pytest.mark.shows("embeddings")
def test_rest_embeddings(inference):
    body = answered(inference, "embeddings")
    assert [item["index"] for item in body["data"]] == [0, 1]
    packed = base64.b64decode(answered(inference, "base64")["data"][0]["embedding"])
    floats = struct.unpack(f"<{WIDTH}f", packed)
    assert floats == pytest.approx(body["data"][0]["embedding"], abs=1e-6)
    assert body["id"]


@AZURE_REST
@pytest.mark.shows("image embeddings")
def test_rest_image_embeddings(inference):
    assert len(answered(inference, "images")["data"][0]["embedding"]) == WIDTH


@AZURE_REST
@pytest.mark.shows("model info")
def test_rest_info(inference):
    body = answered(inference, "info")
    assert (body["model_name"], body["model_type"]) == (CHAT, "chat-completions")
    assert body["model_provider_name"]


@AZURE_REST
@pytest.mark.shows("errors")
def test_rest_refusals(inference):
    body = refused(inference, "wrong key", "401")
    assert body["error"]["code"] == "401" and "auth token validation failed" in body["error"]["message"]
    assert refused(inference, "unknown model", "404")["error"]["code"] == "unknown_model"
    assert inference.value("unknown model")["headers"]["x-ms-error-code"] == "unknown_model"
    body = refused(inference, "no image reader", "422")
    assert body["error"]["code"] == body["code"] == "parameter_not_supported"
    assert body["detail"]["loc"] == ["body", "messages", 0, "content", 0]
    for case in ("wrong key", "unknown model", "no image reader"):
        assert "retry-after" not in inference.value(case)["headers"]


@AZURE_REST
@pytest.mark.shows("errors")
def test_rest_extra_parameters(inference):
    for case in ("extra without header", "extra error"):
        body = refused(inference, case, "400")
        assert "'n'" in body["error"]["message"] and body["detail"].startswith("Extra parameters [")
    for case in ("extra drop", "extra pass-through", "extra allow"):
        assert answered(inference, case)["usage"]["completion_tokens"] == 2


@AZURE_REST
@pytest.mark.shows("content filter")
@pytest.mark.parametrize("case", ["blocked", "blocked stream"])
def test_rest_blocked_prompt(inference, case):
    body = refused(inference, case, "400")
    assert body["error"]["code"] == body["code"] == "content_filter"
    assert body["error"]["innererror"]["content_filter_result"]["violence"]["filtered"] is True


# ------------------------------------------------------------------------------------------------------------------- OpenAI

OPENAI_WAYS = {
    "/v1": "openai, JavaScript, `OpenAI` at `/v1`",
    "/openai/v1": "openai, JavaScript, `OpenAI` at `/openai/v1`",
    "azure": "openai, JavaScript, `AzureOpenAI`",
}


@pytest.fixture(
    scope="module", params=[pytest.param(way, marks=pytest.mark.client(name)) for way, name in OPENAI_WAYS.items()]
)
def openai(standalone, request):
    return driver.node("openai.mjs", standalone, way=request.param)


@pytest.mark.shows("chat")
def test_openai_chat(openai):
    answer = openai.value("chat")
    assert ANSWER in answer["choices"][0]["message"]["content"]
    assert answer["requestId"] and isinstance(answer["created"], int)
    assert re.fullmatch(r"chatcmpl-[0-9A-Za-z]{29}", answer["id"])


@pytest.mark.shows("streaming")
def test_openai_stream(openai):
    whole = openai.value("chat")["choices"][0]["message"]["content"]
    chunks = openai.value("stream")
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == whole
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0
    assert all(c.get("usage") is None for c in openai.value("stream without usage"))


@pytest.mark.shows("tools")
def test_openai_tools(openai):
    call = openai.value("tools")["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "get_weather" and "city" in json.loads(call["function"]["arguments"])


@pytest.mark.shows("streamed tools")
def test_openai_streamed_tools(openai):
    (call,) = openai.value("streamed tools")["choices"][0]["message"]["tool_calls"]
    assert call["id"] and call["function"]["name"] == "get_weather"
    assert "city" in json.loads(call["function"]["arguments"])


@pytest.mark.shows("structured output")
def test_openai_structured_output(openai):
    free = openai.value("json object")["choices"][0]["message"]["content"]
    assert isinstance(json.loads(free), dict)
    assert set(json.loads(openai.value("json schema")["content"])) == {"city", "inhabitants"}


@pytest.mark.shows("completions")
def test_openai_completions(openai):
    whole = openai.value("completions")["choices"][0]["text"]
    assert "four" in whole
    assert "".join(c["choices"][0]["text"] for c in openai.value("completions stream") if c["choices"]) == whole


@pytest.mark.shows("embeddings")
def test_openai_embeddings_are_not_empty(openai):
    unasked = [item["embedding"] for item in openai.value("embeddings")["data"]]
    floats = [item["embedding"] for item in openai.value("floats")["data"]]
    assert [len(vector) for vector in unasked] == [WIDTH, WIDTH]
    assert unasked[0] == pytest.approx(floats[0], abs=1e-6)


@pytest.mark.shows("model info")
def test_openai_models(openai):
    assert {CHAT, EMBED, IMAGES} <= set(openai.value("models"))


@pytest.mark.shows("errors")
def test_openai_refusals(openai):
    wrong = openai.raised("wrong key")
    assert (wrong["kind"], wrong["status"], wrong["code"]) == ("AuthenticationError", 401, "401")
    unknown = openai.raised("unknown model")
    assert (unknown["kind"], unknown["status"], unknown["code"]) == ("NotFoundError", 404, "DeploymentNotFound")
    assert unknown["requestID"]
    length = openai.raised("no such length")
    assert (length["kind"], length["status"], length["code"]) == ("BadRequestError", 400, "unsupported_parameter")
    assert length["body"]["param"] == "dimensions"


@pytest.mark.shows("content filter")
@pytest.mark.parametrize("case", ["blocked", "blocked stream"])
def test_openai_blocked_prompt(openai, case):
    raised = openai.raised(case)
    assert (raised["kind"], raised["status"], raised["code"]) == ("BadRequestError", 400, "content_filter")
    assert raised["body"]["innererror"]["content_filter_result"]["violence"]["filtered"] is True


# ----------------------------------------------------------------------------------------------------------- content safety


@pytest.fixture(scope="module")
def safety(standalone):
    return driver.node("content_safety.mjs", standalone, blocklist="tests-javascript")


@SAFETY
@pytest.mark.shows("content safety")
def test_safety_of_text_and_image(safety):
    severities = {c["category"]: c["severity"] for c in answered(safety, "text")["categoriesAnalysis"]}
    assert set(severities) == {"Hate", "SelfHarm", "Sexual", "Violence"} and severities["Violence"] in (4, 6)
    assert answered(safety, "image")["categoriesAnalysis"]


@SAFETY
@pytest.mark.shows("errors")
def test_safety_refuses_a_wrong_key(safety):
    assert refused(safety, "wrong key", "401")["error"]["code"] == "401"


@SAFETY
@pytest.mark.shows("blocklists")
def test_safety_blocklist_life(safety):
    def done(case, status):
        answer = safety.value(case)
        assert (answer["status"], answer["unexpected"]) == (status, False), answer
        return answer.get("body")

    assert done("create", "201")["description"] == "first"
    assert done("update", "200") == {"blocklistName": "tests-javascript", "description": "second"}
    assert done("get", "200")["description"] == "second"
    assert "tests-javascript" in [found["blocklistName"] for found in done("list", "200")["value"]]
    assert [item["text"] for item in done("add", "200")["blocklistItems"]] == ["wolpertinger", "jackalope"]
    first, *rest = done("items", "200")["value"]
    assert [match["blocklistItemText"] for match in done("match", "200")["blocklistsMatch"]] == ["wolpertinger"]
    done("remove", "204")
    assert done("items left", "200")["value"] == rest
    done("delete", "204")
    assert refused(safety, "gone", "404")["error"]["code"]
