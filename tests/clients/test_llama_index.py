"""LlamaIndex's two packages for the inference API."""

import asyncio
import json

import pytest
from asked import ANSWER, CHAT, DESCRIBE, EMBED, QUESTION, SCHEMA, SYSTEM, WEATHER, WIDTH, blocked_prompt
from azure.ai.inference.models import JsonSchemaFormat
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.azure_inference import AzureAIEmbeddingsModel
from llama_index.llms.azure_inference import AzureAICompletionsModel

LLM = pytest.mark.client("llama-index-llms-azure-inference")
EMBEDDER = pytest.mark.client("llama-index-embeddings-azure-inference")
ASKED = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=QUESTION)]


def llm(koine, **options):
    return AzureAICompletionsModel(**{"endpoint": koine.endpoint, "credential": koine.key, "max_tokens": 40} | options)


def embedder(koine, **options):
    return AzureAIEmbeddingsModel(**{"endpoint": koine.endpoint, "credential": koine.key} | options)


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Rain in {city}"


@LLM
@pytest.mark.shows("chat")
def test_chat(standalone):
    answer = llm(standalone).chat(ASKED)
    assert ANSWER in answer.message.content
    assert answer.raw["usage"]["completion_tokens"] > 0


@LLM
@pytest.mark.shows("streaming")
def test_stream(standalone):
    pieces = list(llm(standalone).stream_chat(ASKED))
    assert ANSWER in pieces[-1].message.content
    assert "".join(piece.delta for piece in pieces) == pieces[-1].message.content
    assert pieces[-1].raw.usage.completion_tokens > 0


@LLM
@pytest.mark.shows("chat", "streaming")
def test_async(standalone):
    async def ask():
        whole = await llm(standalone).achat(ASKED)
        pieces = [piece async for piece in await llm(standalone).astream_chat(ASKED)]
        return whole.message.content, pieces[-1].message.content

    whole, streamed = asyncio.run(ask())
    assert ANSWER in whole and ANSWER in streamed


@LLM
@pytest.mark.shows("completions")
def test_complete_goes_through_chat(standalone):
    """The package's own `complete`: one user message."""
    assert ANSWER in llm(standalone).complete(QUESTION).text


@LLM
@pytest.mark.shows("tools")
def test_a_required_tool_is_called(standalone):
    model = llm(standalone, max_tokens=120)
    tool = FunctionTool.from_defaults(get_weather)
    answer = model.chat_with_tools([tool], user_msg=WEATHER, tool_required=True)
    chosen = model.get_tool_calls_from_response(answer)
    assert [call.tool_name for call in chosen] == ["get_weather"]
    assert "city" in chosen[0].tool_kwargs
    assert tool(**chosen[0].tool_kwargs).content.startswith("Rain in ")


@LLM
@pytest.mark.shows("structured output")
def test_structured_output_by_schema(standalone):
    form = JsonSchemaFormat(name="city", schema=SCHEMA, strict=True)
    answer = llm(standalone, max_tokens=120).chat([ChatMessage(role="user", content=DESCRIBE)], response_format=form)
    assert set(json.loads(answer.message.content)) == {"city", "inhabitants"}


@LLM
@pytest.mark.shows("model info")
def test_the_model_counts_as_a_chat_model(standalone):
    """Only for one spelling of its kind."""
    metadata = llm(standalone).metadata
    assert metadata.is_chat_model and metadata.model_name == CHAT


@LLM
@pytest.mark.shows("errors", "content filter")
def test_refusals(standalone):
    with pytest.raises(ClientAuthenticationError):
        llm(standalone, credential="wrong").chat(ASKED)
    with pytest.raises(ResourceNotFoundError) as refused:
        llm(standalone, model_name="gpt-nope").chat(ASKED)
    assert refused.value.error.code == "unknown_model"
    with pytest.raises(HttpResponseError) as refused:
        llm(standalone).chat([ChatMessage(role="user", content=blocked_prompt())])
    assert (refused.value.status_code, refused.value.error.code) == (400, "content_filter")


@EMBEDDER
@pytest.mark.shows("embeddings")
def test_embeddings(standalone):
    model = embedder(standalone, model_name=EMBED)
    vectors = model.get_text_embedding_batch(["A cat sleeps.", "A kitten naps."])
    assert [len(vector) for vector in vectors] == [WIDTH, WIDTH]
    assert model.similarity(vectors[0], model.get_query_embedding("A cat sleeps.")) == pytest.approx(1, abs=1e-3)


@EMBEDDER
@pytest.mark.shows("embeddings")
def test_async_embeddings(standalone):
    async def ask():
        model = embedder(standalone, model_name=EMBED)
        async with model._async_client:
            return await model.aget_text_embedding("hello")

    assert len(asyncio.run(ask())) == WIDTH


@EMBEDDER
@pytest.mark.shows("model info")
def test_embeddings_without_a_model_take_the_one_of_info(standalone):
    """Of an endpoint that serves one model; here the header chooses it."""
    options = {"client_kwargs": {"headers": {"azureml-model-deployment": EMBED}}}
    model = embedder(standalone, **options)
    assert model.model_name == EMBED
    assert len(model.get_text_embedding("hello")) == WIDTH


@EMBEDDER
@pytest.mark.shows("errors")
def test_refusals_of_embeddings(standalone):
    with pytest.raises(ClientAuthenticationError):
        embedder(standalone, credential="wrong", model_name=EMBED).get_text_embedding("hello")
    with pytest.raises(ResourceNotFoundError):
        embedder(standalone, model_name="gpt-nope").get_text_embedding("hello")
    with pytest.raises(HttpResponseError) as refused:
        embedder(standalone, model_name=EMBED, model_kwargs={"dimensions": 5}).get_text_embedding("hello")
    assert (refused.value.status_code, refused.value.error.code) == (422, "parameter_not_supported")
