"""azure-ai-inference, sync and async, unmodified, against real models on every route."""

import asyncio
import base64
import io
import json
import math
import re
import struct

import pytest
from asked import (
    ANSWER,
    CAT,
    CHAT,
    COFFEE,
    DESCRIBE,
    EMBED,
    FRANCE,
    FRUIT,
    IMAGES,
    ONLY_IMAGES,
    SCHEMA,
    TOOL,
    WEATHER,
    WIDTH,
    blocked_prompt,
)
from azure.ai.inference import ChatCompletionsClient, EmbeddingsClient, ImageEmbeddingsClient, load_client
from azure.ai.inference.aio import ChatCompletionsClient as AsyncChat
from azure.ai.inference.aio import EmbeddingsClient as AsyncEmbeddings
from azure.ai.inference.aio import ImageEmbeddingsClient as AsyncImageEmbeddings
from azure.ai.inference.models import (
    AssistantMessage,
    ChatCompletionsNamedToolChoice,
    ChatCompletionsNamedToolChoiceFunction,
    ChatCompletionsToolCall,
    ChatCompletionsToolDefinition,
    FunctionCall,
    FunctionDefinition,
    ImageContentItem,
    ImageEmbeddingInput,
    ImageUrl,
    JsonSchemaFormat,
    SystemMessage,
    TextContentItem,
    ToolMessage,
    UserMessage,
)
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
)

SYNC = pytest.mark.client("azure-ai-inference, Python")
ASYNC = pytest.mark.client("azure-ai-inference, Python, async")

ASKED = [SystemMessage(FRANCE[0]["content"]), UserMessage(FRANCE[1]["content"])]
GET_WEATHER = ChatCompletionsToolDefinition(function=FunctionDefinition(**TOOL["function"]))
NAMED = ChatCompletionsNamedToolChoice(function=ChatCompletionsNamedToolChoiceFunction(name="get_weather"))


def chat(koine, path="", **options):
    return ChatCompletionsClient(koine.endpoint + path, AzureKeyCredential(koine.key), **options)


def embeddings(koine, path="", **options):
    return EmbeddingsClient(koine.endpoint + path, AzureKeyCredential(koine.key), **options)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def image(file):
    return ImageEmbeddingInput.load(image_file=str(file), image_format="jpeg")


# ---------------------------------------------------------------------------------------------------------------- answers


@SYNC
@pytest.mark.shows("chat")
def test_chat_answers(koine):
    answer = chat(koine).complete(messages=ASKED, temperature=0, max_tokens=40)
    assert ANSWER in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 40
    assert answer.model == CHAT
    assert answer.created.tzinfo is not None


@SYNC
@pytest.mark.shows("streaming")
def test_stream_says_the_same_as_the_whole_answer(koine):
    whole = chat(koine).complete(messages=ASKED, temperature=0, max_tokens=40)
    updates = list(chat(koine).complete(messages=ASKED, temperature=0, max_tokens=40, stream=True))
    assert "".join(u.choices[0].delta.content or "" for u in updates) == whole.choices[0].message.content
    assert [bool(u.choices[0].delta.role) for u in updates] == [True] + [False] * (len(updates) - 1)
    assert all(u.choices[0].delta.content is not None for u in updates)
    assert all(u["created"] == updates[0]["created"] and isinstance(u["created"], int) for u in updates)
    assert {u.id for u in updates} == {updates[0].id}
    assert [u.choices[0].finish_reason for u in updates[:-1]] == [None] * (len(updates) - 1)
    assert updates[-1].choices[0].finish_reason == "stop"
    assert updates[-1].usage.completion_tokens == whole.usage.completion_tokens


@SYNC
@pytest.mark.shows("chat")
def test_max_tokens_ends_with_length(koine):
    answer = chat(koine).complete(messages=[UserMessage("Write a long story about the sea.")], max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


@SYNC
@pytest.mark.shows("chat")
def test_a_seed_repeats_the_answer(koine):
    said = [
        chat(koine).complete(messages=[UserMessage("Invent a name for a boat.")], temperature=1, seed=7, max_tokens=24)
        for _ in range(2)
    ]
    assert said[0].choices[0].message.content == said[1].choices[0].message.content


@SYNC
@pytest.mark.shows("chat")
@pytest.mark.parametrize("stop", [[ANSWER], ANSWER], ids=["list", "string"])
def test_a_stop_string_is_not_part_of_the_answer(koine, stop):
    answer = chat(koine).complete(messages=ASKED, temperature=0, max_tokens=40, stop=stop)
    assert ANSWER not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


@SYNC
@pytest.mark.shows("structured output")
def test_a_json_schema_is_kept(koine):
    answer = chat(koine).complete(
        messages=[UserMessage(DESCRIBE)],
        response_format=JsonSchemaFormat(name="city", schema=SCHEMA, strict=True),
        temperature=0,
        max_tokens=120,
    )
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"city", "inhabitants"}
    assert isinstance(value["city"], str) and isinstance(value["inhabitants"], int)


@SYNC
@pytest.mark.shows("structured output")
def test_a_json_object_is_one(standalone):
    answer = chat(standalone).complete(
        messages=[UserMessage(FRUIT)], response_format="json_object", temperature=0, max_tokens=60
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@SYNC
@pytest.mark.shows("tools")
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_required_tool_is_called(koine, choice):
    answer = chat(koine).complete(
        messages=[UserMessage(WEATHER)], tools=[GET_WEATHER], tool_choice=choice, temperature=0, max_tokens=120
    )
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.type == "function" and call.function.name == "get_weather" and call.id
    assert "city" in json.loads(call.function.arguments)


@SYNC
@pytest.mark.shows("streamed tools")
def test_a_streamed_call_names_itself_once_and_its_pieces_join(koine):
    updates = chat(koine).complete(
        messages=[UserMessage(WEATHER)],
        tools=[GET_WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=120,
        stream=True,
    )
    updates = list(updates)
    calls = [call for u in updates for call in u.choices[0].delta.tool_calls or []]
    assert {call["index"] for call in calls} == {0}
    assert calls[0].id and calls[0]["type"] == "function" and calls[0].function.name == "get_weather"
    assert not any(call.id or call.function.name for call in calls[1:])
    assert "city" in json.loads("".join(call.function.arguments or "" for call in calls))
    assert updates[-1].choices[0].finish_reason == "tool_calls"
    assert updates[-1].usage.completion_tokens > 0


@SYNC
@pytest.mark.shows("tools")
def test_a_history_of_calls_is_read_as_clients_write_it(standalone):
    """No `content` beside calls, calls without `type`, `"name": null` in a result, system text in parts."""
    called = AssistantMessage(
        tool_calls=[ChatCompletionsToolCall(id="call_1", function=FunctionCall(name="get_weather", arguments="{}"))]
    )
    assert "content" not in called
    loose = {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "get_weather", "arguments": "{}"}}]}
    result = {"role": "tool", "content": "12 degrees and rain", "tool_call_id": "call_1", "name": None}
    parts = {"role": "system", "content": [{"type": "text", "text": "Answer in one sentence."}]}
    for history in (
        [UserMessage(WEATHER), called, ToolMessage("12 degrees and rain", tool_call_id="call_1")],
        [parts, {"role": "user", "content": WEATHER}, loose, result],
    ):
        answer = chat(standalone).complete(messages=history, tools=[GET_WEATHER], tool_choice="none", max_tokens=30)
        assert answer.choices[0].message.content


@SYNC
@pytest.mark.shows("embeddings")
def test_embeddings_know_what_is_alike(koine):
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell sharply."]
    answer = embeddings(koine).embed(input=texts)
    vectors = [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert {len(v) for v in vectors} == {WIDTH}
    assert cosine(vectors[0], vectors[1]) > 0.5 > 0.2 > cosine(vectors[0], vectors[2])
    assert answer.usage.prompt_tokens > 15
    assert answer.id and answer.model == EMBED


@SYNC
@pytest.mark.shows("embeddings")
def test_base64_is_the_same_vector(koine):
    floats = embeddings(koine).embed(input=["hello"]).data[0].embedding
    packed = base64.b64decode(embeddings(koine).embed(input=["hello"], encoding_format="base64").data[0].embedding)
    assert struct.unpack(f"<{len(floats)}f", packed) == pytest.approx(floats, abs=1e-6)


@SYNC
@pytest.mark.shows("embeddings")
@pytest.mark.parametrize(
    ("encoding", "length"), [("binary", WIDTH // 8), ("ubinary", WIDTH // 8), ("int8", WIDTH), ("uint8", WIDTH)]
)
def test_other_encodings_have_their_lengths(standalone, encoding, length):
    answer = embeddings(standalone).embed(input=["hello"], encoding_format=encoding, input_type="text")
    vector = answer.data[0].embedding
    low, high = (0, 255) if encoding.startswith("u") else (-128, 127)
    assert len(vector) == length and all(isinstance(x, int) and low <= x <= high for x in vector)


@SYNC
@pytest.mark.shows("image embeddings")
def test_image_embeddings_live_beside_texts(koine):
    client = ImageEmbeddingsClient(koine.endpoint, AzureKeyCredential(koine.key))
    answer = client.embed(input=[image(CAT), image(COFFEE)])
    cat, coffee = (item.embedding for item in answer.data)
    shared = embeddings(koine).embed(input=["a photo of a cat", "a photo of a cup of coffee"], model=IMAGES)
    cat_text, coffee_text = (item.embedding for item in shared.data)
    assert cosine(cat, cat_text) > cosine(cat, coffee_text)
    assert cosine(coffee, coffee_text) > cosine(coffee, cat_text)


# ------------------------------------------------------------------------------------------------------- which model, where


@SYNC
@pytest.mark.shows("model info")
def test_info_names_the_model(koine):
    info = chat(koine).get_model_info()
    assert (info.model_name, info.model_type) == (CHAT, "chat-completions")
    assert info.model_provider_name


@SYNC
@pytest.mark.shows("model info")
@pytest.mark.parametrize(
    ("deployment", "kind"),
    [
        (None, ChatCompletionsClient),
        (CHAT, ChatCompletionsClient),
        (EMBED, EmbeddingsClient),
        (ONLY_IMAGES, ImageEmbeddingsClient),
    ],
)
def test_load_client_picks_the_class_by_the_deployment(standalone, deployment, kind):
    headers = {"azureml-model-deployment": deployment} if deployment else {}
    client = load_client(standalone.endpoint, AzureKeyCredential(standalone.key), headers=headers)
    assert type(client) is kind
    assert client.get_model_info().model_name == (deployment or CHAT)


@SYNC
@pytest.mark.shows("model info")
def test_a_deployment_of_azure_openai_has_no_info(standalone):
    with pytest.raises(ResourceNotFoundError):
        chat(standalone, f"/openai/deployments/{CHAT}").get_model_info()


@SYNC
@pytest.mark.shows("chat")
@pytest.mark.parametrize("path", ["", "/", "/models", "/models/", "/api/models", f"/openai/deployments/{CHAT}"])
def test_every_base_path_answers(standalone, path):
    answer = chat(standalone, path).complete(messages=ASKED, temperature=0, max_tokens=20)
    assert ANSWER in answer.choices[0].message.content
    # Ids as the real service makes them: 32 hex digits or a UUID, and on deployments OpenAI's.
    shape = r"chatcmpl-[0-9A-Za-z]{29}" if "deployments" in path else r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(shape, answer.id)


@SYNC
@pytest.mark.shows("chat")
@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("", "2024-04-01-preview"),
        ("/v1", "2024-04-01-preview"),
        ("", "2024-08-01-preview"),
        ("", "2025-04-01"),
        ("/models", "2024-10-21"),
    ],
)
def test_every_published_version_answers(standalone, path, version):
    answer = chat(standalone, path, api_version=version).complete(messages=ASKED, temperature=0, max_tokens=20)
    assert ANSWER in answer.choices[0].message.content


@SYNC
@pytest.mark.shows("chat")
def test_a_body_from_a_file_comes_in_pieces(standalone):
    body = io.BytesIO(json.dumps({"messages": FRANCE, "temperature": 0, "max_tokens": 20, "stop": None}).encode())
    answer = chat(standalone).complete(body, content_type="application/json")
    assert ANSWER in answer.choices[0].message.content


@SYNC
@pytest.mark.shows("chat")
def test_the_caller_s_id_comes_back(standalone):
    seen = []
    chat(standalone).complete(messages=ASKED, max_tokens=1, raw_response_hook=seen.append)
    asked, answered = seen[0].http_request.headers, seen[0].http_response.headers
    assert answered["x-ms-client-request-id"] == asked["x-ms-client-request-id"]
    assert answered["x-request-id"] and answered["apim-request-id"]
    assert "x-ms-original-url" not in answered
    # This client sends the key twice, and the server minds neither.
    assert asked["Authorization"] == f"Bearer {asked['api-key']}"


class Token:
    """A credential of the other kind, which hands out the key as a token."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, 2**31)


@SYNC
@pytest.mark.shows("errors")
def test_a_token_goes_over_http_only_when_told_to(standalone):
    client = ChatCompletionsClient(standalone.endpoint, Token(standalone.key))
    with pytest.raises(ServiceRequestError):
        client.complete(messages=ASKED, max_tokens=1)
    assert client.complete(messages=ASKED, max_tokens=1, enforce_https=False).usage.completion_tokens == 1


# ----------------------------------------------------------------------------------------------------------------- refusals


@SYNC
@pytest.mark.shows("errors")
def test_a_wrong_key_is_refused_at_once(koine):
    seen = []
    with pytest.raises(ClientAuthenticationError) as refused:
        ChatCompletionsClient(koine.endpoint, AzureKeyCredential("wrong")).complete(
            messages=ASKED, raw_response_hook=seen.append
        )
    assert refused.value.status_code == 401
    assert refused.value.error.code == "401"
    assert "auth token validation failed" in str(refused.value)
    # azure-core asks again whatever carries retry-after.
    assert len(seen) == 1 and "retry-after" not in seen[0].http_response.headers


@SYNC
@pytest.mark.shows("errors")
def test_an_unknown_model_is_named(koine):
    with pytest.raises(ResourceNotFoundError) as refused:
        chat(koine).complete(messages=ASKED, model="gpt-nope")
    assert refused.value.error.code == "unknown_model"
    assert "gpt-nope" in refused.value.error.message
    assert refused.value.response.headers["x-ms-error-code"] == "unknown_model"


@SYNC
@pytest.mark.shows("errors")
def test_a_model_of_another_kind_is_not_found(standalone):
    with pytest.raises(ResourceNotFoundError) as refused:
        embeddings(standalone).embed(input=["hello"], model=CHAT)
    assert refused.value.error.code == "modality_not_supported"


@SYNC
@pytest.mark.shows("errors")
def test_an_image_for_a_model_that_reads_text_is_422(standalone):
    shown = ImageContentItem(image_url=ImageUrl.load(image_file=str(CAT), image_format="jpeg"))
    asked = [UserMessage([TextContentItem(text="What is it?"), shown])]
    with pytest.raises(HttpResponseError) as refused:
        chat(standalone).complete(messages=asked)
    assert refused.value.status_code == 422
    assert refused.value.error.code == "parameter_not_supported"
    # Microsoft's samples read the plain body.
    body = refused.value.response.json()
    assert body["status"] == 422 and body["code"] == "parameter_not_supported" and body["message"]
    assert body["detail"]["loc"] == ["body", "messages", 0, "content", 1]


@SYNC
@pytest.mark.shows("errors")
def test_a_length_that_the_model_cannot_make_is_422(standalone):
    with pytest.raises(HttpResponseError) as refused:
        embeddings(standalone).embed(input=["hello"], dimensions=5)
    assert refused.value.status_code == 422
    assert refused.value.response.json()["detail"] == {"loc": ["body", "dimensions"], "input": 5}


@SYNC
@pytest.mark.shows("errors")
def test_an_extra_parameter_is_refused_unless_dropped_or_passed(koine):
    def ask(extras, **headers):
        body = {"messages": FRANCE, "max_tokens": 2} | extras
        return chat(koine).complete(body, headers={k.replace("_", "-"): v for k, v in headers.items()}).usage

    for headers in ({}, {"extra_parameters": "error"}, {"extra_parameters": "sideways"}):
        with pytest.raises(HttpResponseError) as refused:
            ask({"no_such_thing": 1}, **headers)
        assert refused.value.status_code == 400
    assert ask({"no_such_thing": 1}, extra_parameters="drop").completion_tokens == 2
    for passing in ("pass-through", "allow"):
        assert ask({"n": 1}, extra_parameters=passing).completion_tokens == 2
    # What `model_extras` is for: it sets the header by itself.
    passed = chat(koine).complete(messages=ASKED, max_tokens=2, model_extras={"top_k": 5, "n": 1})
    assert passed.usage.completion_tokens == 2


@SYNC
@pytest.mark.shows("content filter")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_blocked_prompt_says_why(standalone, stream):
    seen = []
    with pytest.raises(HttpResponseError) as refused:
        chat(standalone).complete(messages=[UserMessage(blocked_prompt())], stream=stream, raw_response_hook=seen.append)
    assert refused.value.status_code == 400
    assert refused.value.error.code == "content_filter"
    assert refused.value.error.innererror["code"] == "ResponsibleAIPolicyViolation"
    body = json.loads(seen[0].http_response.body())
    assert body["error"]["innererror"]["content_filter_result"]["violence"]["filtered"] is True
    # The published sample reads these at the top.
    assert body["code"] == "content_filter" and body["message"]
    assert len(seen) == 1


@SYNC
@pytest.mark.shows("content filter")
def test_the_first_version_says_it_in_its_own_words(standalone):
    with pytest.raises(HttpResponseError) as refused:
        chat(standalone, api_version="2024-04-01-preview").complete(messages=[UserMessage(blocked_prompt())])
    assert refused.value.response.json() == {
        "status": 400,
        "code": "content_filter",
        "message": "The response was filtered",
        "param": "messages",
        "type": None,
    }
    assert refused.value.error.code == "content_filter"


@SYNC
@pytest.mark.shows("errors")
def test_an_empty_text_is_400(standalone):
    with pytest.raises(HttpResponseError) as refused:
        embeddings(standalone).embed(input=[""])
    assert refused.value.status_code == 400


# -------------------------------------------------------------------------------------------------------------------- async


def run(koine, ask, kind=AsyncChat, key=None):
    async def inside():
        async with kind(koine.endpoint, AzureKeyCredential(key or koine.key)) as client:
            return await ask(client)

    return asyncio.run(inside())


async def collect(stream):
    return [update async for update in await stream]


@ASYNC
@pytest.mark.shows("chat", "streaming")
def test_async_chat_and_its_stream_say_the_same(koine):
    async def ask(client):
        whole = await client.complete(messages=ASKED, temperature=0, max_tokens=40)
        return whole, await collect(client.complete(messages=ASKED, temperature=0, max_tokens=40, stream=True))

    whole, updates = run(koine, ask)
    assert ANSWER in whole.choices[0].message.content
    assert "".join(u.choices[0].delta.content or "" for u in updates) == whole.choices[0].message.content
    assert updates[-1].usage.completion_tokens == whole.usage.completion_tokens


@ASYNC
@pytest.mark.shows("tools", "streamed tools")
def test_async_tools(standalone):
    wanted = {"messages": [UserMessage(WEATHER)], "tools": [GET_WEATHER], "tool_choice": NAMED, "temperature": 0}

    async def ask(client):
        whole = await client.complete(**wanted, max_tokens=120)
        return whole, await collect(client.complete(**wanted, max_tokens=120, stream=True))

    whole, updates = run(standalone, ask)
    call = whole.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
    calls = [call for u in updates for call in u.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "get_weather"
    assert "city" in json.loads("".join(call.function.arguments or "" for call in calls))


@ASYNC
@pytest.mark.shows("structured output")
def test_async_json_schema(standalone):
    form = JsonSchemaFormat(name="city", schema=SCHEMA, strict=True)
    answer = run(
        standalone,
        lambda client: client.complete(messages=[UserMessage(DESCRIBE)], response_format=form, temperature=0, max_tokens=120),
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "inhabitants"}


@ASYNC
@pytest.mark.shows("embeddings")
def test_async_embeddings(koine):
    answer = run(koine, lambda client: client.embed(input=["hello"]), AsyncEmbeddings)
    assert len(answer.data[0].embedding) == WIDTH


@ASYNC
@pytest.mark.shows("image embeddings")
def test_async_image_embeddings(standalone):
    answer = run(standalone, lambda client: client.embed(input=[image(CAT)]), AsyncImageEmbeddings)
    assert len(answer.data[0].embedding) == WIDTH


@ASYNC
@pytest.mark.shows("model info")
def test_async_info(standalone):
    assert run(standalone, lambda client: client.get_model_info()).model_name == CHAT


@ASYNC
@pytest.mark.shows("errors")
def test_async_refusals(standalone):
    async def unknown(client):
        with pytest.raises(ResourceNotFoundError) as refused:
            await client.complete(messages=ASKED, model="gpt-nope")
        return refused.value.error.code

    async def wrong_key(client):
        with pytest.raises(ClientAuthenticationError) as refused:
            await client.complete(messages=ASKED)
        return refused.value.status_code

    assert run(standalone, unknown) == "unknown_model"
    assert run(standalone, wrong_key, key="wrong") == 401


@ASYNC
@pytest.mark.shows("content filter")
def test_async_blocked_prompt(standalone):
    async def ask(client):
        with pytest.raises(HttpResponseError) as refused:
            await client.complete(messages=[UserMessage(blocked_prompt())])
        return refused.value

    refused = run(standalone, ask)
    assert (refused.status_code, refused.error.code) == (400, "content_filter")
