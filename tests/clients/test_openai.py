"""The OpenAI SDK, as OpenAI on /v1 and /openai/v1 and as AzureOpenAI, unmodified, against real models."""

import asyncio
import json
import re

import openai
import pydantic
import pytest
from asked import ANSWER, CHAT, DESCRIBE, EMBED, FRANCE, FRUIT, IMAGES, SCHEMA, TOOL, WEATHER, WIDTH, blocked_prompt

AZURE_VERSION = "2024-10-21"
NAMED = {"type": "function", "function": {"name": "get_weather"}}

ways = pytest.mark.parametrize(
    "way",
    [
        pytest.param("/v1", marks=pytest.mark.client("openai, Python, `OpenAI` at `/v1`")),
        pytest.param("/openai/v1", marks=pytest.mark.client("openai, Python, `OpenAI` at `/openai/v1`")),
        pytest.param("azure", marks=pytest.mark.client("openai, Python, `AzureOpenAI`")),
    ],
)
pytestmark = ways


def connect(koine, way, key=None, asynchronous=False):
    key = key or koine.key
    if way == "azure":
        kind = openai.AsyncAzureOpenAI if asynchronous else openai.AzureOpenAI
        return kind(azure_endpoint=koine.endpoint, api_key=key, api_version=AZURE_VERSION)
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return kind(base_url=koine.endpoint + way, api_key=key)


@pytest.fixture
def client(koine, way):
    return connect(koine, way)


@pytest.fixture
def single(standalone, way):
    """For what the number of processes cannot change."""
    return connect(standalone, way)


@pytest.mark.shows("chat")
def test_chat(client):
    answer = client.chat.completions.create(model=CHAT, messages=FRANCE, temperature=0, max_tokens=40)
    assert ANSWER in answer.choices[0].message.content
    assert answer._request_id
    assert isinstance(answer.created, int)
    assert re.fullmatch(r"chatcmpl-[0-9A-Za-z]{29}", answer.id)


@pytest.mark.shows("streaming")
def test_stream_with_usage(client):
    chunks = list(
        client.chat.completions.create(
            model=CHAT,
            messages=FRANCE,
            temperature=0,
            max_tokens=40,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert ANSWER in text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])
    assert all(isinstance(c.created, int) for c in chunks)


@pytest.mark.shows("streaming")
def test_stream_without_usage_has_none(single):
    chunks = list(single.chat.completions.create(model=CHAT, messages=FRANCE, temperature=0, max_tokens=40, stream=True))
    assert all(c.usage is None for c in chunks)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


@pytest.mark.shows("chat", "streaming")
def test_async_client(standalone, way):
    async def ask():
        async with connect(standalone, way, asynchronous=True) as client:
            wanted = {"model": CHAT, "messages": FRANCE, "temperature": 0, "max_completion_tokens": 40}
            whole = await client.chat.completions.create(**wanted)
            chunks = [chunk async for chunk in await client.chat.completions.create(**wanted, stream=True)]
        return whole.choices[0].message.content, chunks

    whole, chunks = asyncio.run(ask())
    assert ANSWER in whole
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole


@pytest.mark.shows("chat")
def test_two_choices_differ_only_by_chance(client):
    answer = client.chat.completions.create(model=CHAT, messages=FRANCE, n=2, max_tokens=8, temperature=0)
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].message.content == answer.choices[1].message.content


@pytest.mark.shows("chat")
def test_what_openai_alone_has_is_taken(single):
    answer = single.chat.completions.create(
        model=CHAT,
        messages=FRANCE,
        max_completion_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        user="somebody",
        parallel_tool_calls=None,
        store=False,
        metadata={"purpose": "test"},
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens == 4
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    # OpenAI's range of temperature is wider than the inference API's.
    assert single.chat.completions.create(model=CHAT, messages=FRANCE, max_tokens=1, temperature=1.9).choices


@pytest.mark.shows("tools")
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_forced_tool_is_called(single, choice):
    answer = single.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": WEATHER}],
        tools=[TOOL],
        tool_choice=choice,
        temperature=0,
        max_tokens=120,
    )
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert "city" in json.loads(call.function.arguments)


@pytest.mark.shows("streamed tools")
def test_the_helper_puts_a_streamed_call_together(single):
    with single.chat.completions.stream(
        model=CHAT,
        messages=[{"role": "user", "content": WEATHER}],
        tools=[TOOL],
        tool_choice="required",
        temperature=0,
        max_tokens=120,
    ) as events:
        kinds = [event.type for event in events]
        message = events.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert len(message.tool_calls) == 1
    call = message.tool_calls[0]
    assert call.id and call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)


class City(pydantic.BaseModel):
    city: str
    inhabitants: int


@pytest.mark.shows("structured output")
def test_parse_gives_an_object_of_the_class(single):
    answer = single.chat.completions.parse(
        model=CHAT,
        messages=[{"role": "user", "content": DESCRIBE}],
        response_format=City,
        temperature=0,
        max_tokens=120,
    )
    assert isinstance(answer.choices[0].message.parsed, City)


@pytest.mark.shows("structured output")
@pytest.mark.parametrize(
    ("question", "form"),
    [
        (FRUIT, {"type": "json_object"}),
        (DESCRIBE, {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}),
    ],
    ids=["json_object", "json_schema"],
)
def test_json_comes_as_json(single, question, form):
    answer = single.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": question}],
        response_format=form,
        temperature=0,
        max_tokens=120,
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.shows("structured output")
def test_what_a_grammar_cannot_hold_to_is_left_out_unless_strict(single):
    score = {"type": "object", "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["score"]}

    def ask(**strict):
        form = {"type": "json_schema", "json_schema": {"name": "score", "schema": score, **strict}}
        return single.chat.completions.create(
            model=CHAT, messages=FRANCE, response_format=form, temperature=0, max_tokens=60
        )

    assert list(json.loads(ask().choices[0].message.content)) == ["score"]
    with pytest.raises(openai.BadRequestError, match="`minimum`") as refused:
        ask(strict=True)
    assert refused.value.code == "unsupported_value" and refused.value.param == "response_format"


@pytest.mark.shows("embeddings")
def test_embeddings_come_as_base64_and_read_as_floats(client):
    unasked = client.embeddings.create(model=EMBED, input=["hello", "world"])
    floats = client.embeddings.create(model=EMBED, input=["hello", "world"], encoding_format="float")
    assert [len(d.embedding) for d in unasked.data] == [WIDTH, WIDTH]
    assert sum(x * x for x in unasked.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert unasked.data[1].embedding == pytest.approx(floats.data[1].embedding, abs=1e-6)


@pytest.mark.shows("completions")
def test_completions(client):
    answer = client.completions.create(model=CHAT, prompt=["One, two, three,", "A, B, C,"], max_tokens=6, temperature=0)
    assert [c.index for c in answer.choices] == [0, 1]
    assert "four" in answer.choices[0].text
    assert answer.usage.completion_tokens <= 12


@pytest.mark.shows("completions")
def test_the_first_token_of_an_echoed_prompt_has_no_probability(single):
    answer = single.completions.create(model=CHAT, prompt="Hello dear world", echo=True, logprobs=2, max_tokens=1, temperature=0)
    found = answer.choices[0].logprobs
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert len(found.tokens) > 3 and all(logprob < 0 for logprob in found.token_logprobs[1:])


@pytest.mark.shows("completions")
def test_completions_stream(single):
    asked = {"model": CHAT, "prompt": "One, two, three,", "max_tokens": 6, "temperature": 0}
    whole = single.completions.create(**asked).choices[0].text
    chunks = list(single.completions.create(**asked, stream=True))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole
    assert {c.object for c in chunks} == {"text_completion"}


@pytest.mark.shows("model info")
def test_models_are_listed(single):
    assert {CHAT, EMBED, IMAGES} <= {m.id for m in single.models.list()}


@pytest.mark.shows("model info")
def test_one_model_and_none(single, way):
    if way == "azure":
        # Azure OpenAI lists models, and describes a single one nowhere among its inference routes.
        assert all(model.object == "model" for model in single.models.list())
        return
    assert single.models.retrieve(CHAT).owned_by
    with pytest.raises(openai.NotFoundError) as refused:
        single.models.retrieve("gpt-nope")
    assert refused.value.code == "model_not_found"


@pytest.mark.shows("errors")
def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-nope", messages=FRANCE)
    assert refused.value.code == "DeploymentNotFound"
    assert "gpt-nope" in refused.value.body["message"]
    assert refused.value.request_id


@pytest.mark.shows("errors")
def test_a_wrong_key_is_an_authentication_error(standalone, way):
    with pytest.raises(openai.AuthenticationError) as refused:
        connect(standalone, way, key="wrong").chat.completions.create(model=CHAT, messages=FRANCE)
    assert refused.value.code == "401"
    assert "retry-after" not in refused.value.response.headers


@pytest.mark.shows("errors")
def test_what_the_model_cannot_take_is_a_bad_request_that_names_it(single):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(openai.BadRequestError) as refused:
        single.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": [part]}])
    assert (refused.value.code, refused.value.type) == ("unsupported_value", "invalid_request_error")
    assert refused.value.param.startswith("messages")
    with pytest.raises(openai.BadRequestError) as refused:
        single.embeddings.create(model=EMBED, input="hello", dimensions=5)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "dimensions")


@pytest.mark.shows("content filter")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_blocked_prompt_says_why(single, stream):
    with pytest.raises(openai.BadRequestError) as refused:
        single.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": blocked_prompt()}], stream=stream)
    assert refused.value.code == "content_filter"
    inner = refused.value.body["innererror"]
    assert inner["code"] == "ResponsibleAIPolicyViolation"
    assert inner["content_filter_result"]["violence"]["filtered"] is True


@pytest.mark.shows("content filter")
def test_an_answer_is_annotated(single):
    answer = single.chat.completions.create(model=CHAT, messages=FRANCE, max_tokens=8)
    assert answer.model_extra["prompt_filter_results"][0]["content_filter_results"]["violence"]["severity"] == "safe"
    assert answer.choices[0].model_extra["content_filter_results"]["hate"]["filtered"] is False


@pytest.mark.shows("chat")
def test_the_client_sends_the_one_credential_of_its_kind(standalone, way):
    """AzureOpenAI sends `api-key` alone, the others a bearer token alone: each must do by itself."""
    client = connect(standalone, way)
    sent = client.chat.completions.with_raw_response.create(model=CHAT, messages=FRANCE, max_tokens=1)
    headers = sent.http_request.headers
    assert ("api-key" in headers, "authorization" in headers) == (way == "azure", way != "azure")
