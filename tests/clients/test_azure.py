"""azure-ai-inference, sync and async, unmodified, against real models on every route."""

import asyncio
import base64
import math
from pathlib import Path

import pytest
from azure.ai.inference import ChatCompletionsClient, EmbeddingsClient, ImageEmbeddingsClient, load_client
from azure.ai.inference.aio import ChatCompletionsClient as AsyncChat
from azure.ai.inference.aio import EmbeddingsClient as AsyncEmbeddings
from azure.ai.inference.models import (
    ChatCompletionsToolDefinition,
    FunctionDefinition,
    ImageEmbeddingInput,
    JsonSchemaFormat,
    SystemMessage,
    UserMessage,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

DATA = Path(__file__).parent / "data"
FRANCE = [SystemMessage("Answer in one sentence."), UserMessage("What is the capital of France?")]


def chat(koine, **options):
    return ChatCompletionsClient(koine.endpoint, AzureKeyCredential(koine.key), **options)


def embeddings(koine, **options):
    return EmbeddingsClient(koine.endpoint, AzureKeyCredential(koine.key), **options)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def image(name):
    return ImageEmbeddingInput.load(image_file=str(DATA / name), image_format="jpeg")


def test_chat_answers(koine):
    answer = chat(koine).complete(messages=FRANCE, temperature=0, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 40
    assert answer.model


def test_stream_says_the_same_as_the_whole_answer(koine):
    whole = chat(koine).complete(messages=FRANCE, temperature=0, max_tokens=40)
    updates = list(chat(koine).complete(messages=FRANCE, temperature=0, max_tokens=40, stream=True))
    assert "".join(u.choices[0].delta.content or "" for u in updates) == whole.choices[0].message.content
    assert updates[0].choices[0].delta.role == "assistant"
    assert updates[-1].choices[0].finish_reason == "stop"
    assert updates[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_max_tokens_ends_with_length(koine):
    answer = chat(koine).complete(messages=[UserMessage("Write a long story about the sea.")], max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_a_seed_repeats_the_answer(koine):
    said = [
        chat(koine).complete(messages=[UserMessage("Invent a name for a boat.")], temperature=1, seed=7, max_tokens=24)
        for _ in range(2)
    ]
    assert said[0].choices[0].message.content == said[1].choices[0].message.content


def test_a_stop_string_is_not_part_of_the_answer(koine):
    answer = chat(koine).complete(messages=FRANCE, temperature=0, max_tokens=40, stop=["Paris"])
    assert "Paris" not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_json_schema_is_kept(koine):
    import json

    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"],
        "additionalProperties": False,
    }
    answer = chat(koine).complete(
        messages=[UserMessage("Describe Paris as JSON with city and inhabitants.")],
        response_format=JsonSchemaFormat(name="city", schema=schema, strict=True),
        temperature=0,
        max_tokens=120,
    )
    value = json.loads(answer.choices[0].message.content)
    assert isinstance(value["city"], str) and isinstance(value["inhabitants"], int)


def test_a_required_tool_is_called(koine):
    import json

    weather = ChatCompletionsToolDefinition(
        function=FunctionDefinition(
            name="get_weather",
            description="The weather in a city",
            parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        )
    )
    answer = chat(koine).complete(
        messages=[UserMessage("What is the weather in Oslo?")],
        tools=[weather],
        tool_choice="required",
        temperature=0,
        max_tokens=120,
    )
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather" and call.id
    assert "city" in json.loads(call.function.arguments)


def test_embeddings_know_what_is_alike(koine):
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell sharply."]
    answer = embeddings(koine).embed(input=texts)
    vectors = [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert {len(v) for v in vectors} == {384}
    assert cosine(vectors[0], vectors[1]) > 0.5 > 0.2 > cosine(vectors[0], vectors[2])
    assert answer.usage.prompt_tokens > 15


def test_base64_is_the_same_vector(koine):
    import struct

    floats = embeddings(koine).embed(input=["hello"]).data[0].embedding
    packed = base64.b64decode(embeddings(koine).embed(input=["hello"], encoding_format="base64").data[0].embedding)
    assert struct.unpack(f"<{len(floats)}f", packed) == pytest.approx(floats, abs=1e-6)


def test_image_embeddings_live_beside_texts(koine):
    client = ImageEmbeddingsClient(koine.endpoint, AzureKeyCredential(koine.key))
    answer = client.embed(input=[image("cat.jpg"), image("coffee.jpg")])
    cat, coffee = (item.embedding for item in answer.data)
    shared = embeddings(koine).embed(
        input=["a photo of a cat", "a photo of a cup of coffee"], model="efficientnet-lite0-minilm"
    )
    cat_text, coffee_text = (item.embedding for item in shared.data)
    assert cosine(cat, cat_text) > cosine(cat, coffee_text)
    assert cosine(coffee, coffee_text) > cosine(coffee, cat_text)


def test_info_and_load_client(koine):
    info = chat(koine).get_model_info()
    assert (info.model_name, info.model_type) == ("smollm2-135m-instruct", "chat-completions")
    assert info.model_provider_name
    assert isinstance(load_client(koine.endpoint, AzureKeyCredential(koine.key)), ChatCompletionsClient)


def test_a_wrong_key_is_refused(koine):
    with pytest.raises(ClientAuthenticationError) as refused:
        ChatCompletionsClient(koine.endpoint, AzureKeyCredential("wrong")).complete(messages=FRANCE)
    assert refused.value.status_code == 401
    assert "auth token validation failed" in str(refused.value)


def test_an_unknown_model_is_named(koine):
    with pytest.raises(ResourceNotFoundError) as refused:
        chat(koine).complete(messages=FRANCE, model="gpt-nope")
    assert refused.value.error.code == "unknown_model"
    assert "gpt-nope" in refused.value.error.message


def test_an_extra_parameter_is_refused_unless_dropped_or_passed(koine):
    with pytest.raises(HttpResponseError) as refused:
        chat(koine).complete(messages=FRANCE, model_extras={"no_such_thing": 1})
    assert refused.value.status_code in (400, 422)
    passed = chat(koine).complete(messages=FRANCE, max_tokens=2, model_extras={"top_k": 5})
    assert passed.usage.completion_tokens == 2


def test_async_clients(koine):
    async def ask():
        credential = AzureKeyCredential(koine.key)
        async with AsyncChat(koine.endpoint, credential) as client:
            whole = await client.complete(messages=FRANCE, temperature=0, max_tokens=40)
            stream = await client.complete(messages=FRANCE, temperature=0, max_tokens=40, stream=True)
            pieces = [u.choices[0].delta.content or "" async for u in stream]
        async with AsyncEmbeddings(koine.endpoint, credential) as client:
            vectors = await client.embed(input=["hello"])
        return whole.choices[0].message.content, "".join(pieces), vectors.data[0].embedding

    whole, streamed, vector = asyncio.run(ask())
    assert "Paris" in whole and whole == streamed and len(vector) == 384
