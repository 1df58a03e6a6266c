"""LangChain: the model-inference classes of langchain-azure-ai, its OpenAI classes, and langchain-openai."""

import asyncio

import openai
import pydantic
import pytest
from asked import ANSWER, CHAT, DESCRIBE, EMBED, FRUIT, QUESTION, SYSTEM, TOOL, WEATHER, WIDTH, blocked_prompt
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from langchain_azure_ai.chat_models import AzureAIOpenAIApiChatModel
from langchain_azure_ai.chat_models.inference import AzureAIChatCompletionsModel
from langchain_azure_ai.embeddings import AzureAIOpenAIApiEmbeddingsModel
from langchain_azure_ai.embeddings.inference import AzureAIEmbeddingsModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import AzureChatOpenAI, AzureOpenAIEmbeddings, ChatOpenAI, OpenAIEmbeddings

INFERENCE = "langchain-azure-ai, inference classes"
ASKED = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]
AZURE_VERSION = "2024-10-21"

# The classes say themselves that they are old; that is why they are tested.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def inference_chat(koine, **options):
    options = {"endpoint": koine.endpoint, "credential": koine.key, "temperature": 0.01, "max_tokens": 40} | options
    return AzureAIChatCompletionsModel(**options)


def inference_embeddings(koine, **options):
    return AzureAIEmbeddingsModel(**{"endpoint": koine.endpoint, "credential": koine.key} | options)


def foundry_chat(koine, **options):
    options = {"credential": koine.key, "model": CHAT, "temperature": 0, "max_tokens": 40} | options
    return AzureAIOpenAIApiChatModel(endpoint=koine.endpoint + "/openai/v1", use_responses_api=False, **options)


def openai_chat(koine, **options):
    options = {"credential": koine.key, "model": CHAT, "temperature": 0, "max_tokens": 40} | options
    return ChatOpenAI(base_url=koine.endpoint + "/v1", api_key=options.pop("credential"), **options)


def azure_chat(koine, **options):
    options = {"credential": koine.key, "model": CHAT, "temperature": 0, "max_tokens": 40} | options
    return AzureChatOpenAI(
        azure_endpoint=koine.endpoint,
        api_key=options.pop("credential"),
        azure_deployment=options.pop("model"),
        api_version=AZURE_VERSION,
        **options,
    )


# Without the check LangChain sends texts; with it, token numbers of OpenAI's own vocabulary, which mean nothing here.
def foundry_embeddings(koine):
    return AzureAIOpenAIApiEmbeddingsModel(
        endpoint=koine.endpoint + "/openai/v1", credential=koine.key, model=EMBED, check_embedding_ctx_length=False
    )


def openai_embeddings(koine):
    return OpenAIEmbeddings(
        base_url=koine.endpoint + "/v1", api_key=koine.key, model=EMBED, check_embedding_ctx_length=False
    )


def azure_embeddings(koine):
    return AzureOpenAIEmbeddings(
        azure_endpoint=koine.endpoint,
        api_key=koine.key,
        azure_deployment=EMBED,
        api_version=AZURE_VERSION,
        check_embedding_ctx_length=False,
    )


NAMES = {
    inference_chat: INFERENCE,
    inference_embeddings: INFERENCE,
    foundry_chat: "langchain-azure-ai, OpenAI classes",
    foundry_embeddings: "langchain-azure-ai, OpenAI classes",
    openai_chat: "langchain-openai, `ChatOpenAI` and `OpenAIEmbeddings`",
    openai_embeddings: "langchain-openai, `ChatOpenAI` and `OpenAIEmbeddings`",
    azure_chat: "langchain-openai, `AzureChatOpenAI` and `AzureOpenAIEmbeddings`",
    azure_embeddings: "langchain-openai, `AzureChatOpenAI` and `AzureOpenAIEmbeddings`",
}


def each(*makers):
    """One test per way to make the model, marked as the client that it makes."""
    params = [pytest.param(maker, marks=pytest.mark.client(NAMES[maker]), id=maker.__name__) for maker in makers]
    return pytest.mark.parametrize("make", params)


openai_chats = each(foundry_chat, openai_chat, azure_chat)
all_chats = each(inference_chat, foundry_chat, openai_chat, azure_chat)
all_embeddings = each(inference_embeddings, foundry_embeddings, openai_embeddings, azure_embeddings)


@all_chats
@pytest.mark.shows("chat")
def test_invoke_answers_and_counts(standalone, make):
    answer = make(standalone).invoke(ASKED)
    assert ANSWER in answer.content
    assert 0 < answer.usage_metadata["output_tokens"] <= 40


@all_chats
@pytest.mark.shows("streaming")
def test_stream_joins_to_an_answer_with_its_usage(standalone, make):
    whole = None
    for chunk in make(standalone).stream(ASKED, **({} if make is inference_chat else {"stream_usage": True})):
        whole = chunk if whole is None else whole + chunk
    assert ANSWER in whole.content
    assert whole.usage_metadata["output_tokens"] > 0


@all_chats
@pytest.mark.shows("chat", "streaming")
def test_async_stream(standalone, make):
    async def ask():
        model = make(standalone)
        chunks = [chunk.content async for chunk in model.astream(ASKED)]
        if make is inference_chat:
            await model.aclose()
        return "".join(chunks)

    assert ANSWER in asyncio.run(ask())


@all_chats
@pytest.mark.shows("tools")
def test_a_bound_tool_is_called(standalone, make):
    answer = make(standalone, max_tokens=120).bind_tools([TOOL], tool_choice="any").invoke(WEATHER)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert "city" in answer.tool_calls[0]["args"]
    assert not answer.invalid_tool_calls


@all_chats
@pytest.mark.shows("streamed tools")
def test_a_streamed_call_is_not_lost(standalone, make):
    """LangChain drops pieces that carry no index."""
    whole = None
    for chunk in make(standalone, max_tokens=120).bind_tools([TOOL], tool_choice="any").stream(WEATHER):
        whole = chunk if whole is None else whole + chunk
    assert [call["name"] for call in whole.tool_calls] == ["get_weather"]
    assert "city" in whole.tool_calls[0]["args"]


@all_chats
@pytest.mark.shows("tools")
def test_a_tool_named_by_its_name_alone_is_called(standalone, make):
    """The inference class sends the bare name where the API has an object."""
    answer = make(standalone, max_tokens=120).bind_tools([TOOL], tool_choice="get_weather").invoke(WEATHER)
    assert answer.tool_calls[0]["name"] == "get_weather"


@all_chats
@pytest.mark.shows("tools")
def test_the_result_of_a_call_goes_back(standalone, make):
    call = {"name": "get_weather", "args": {"city": "Oslo"}, "id": "call_1", "type": "tool_call"}
    history = [
        SystemMessage([{"type": "text", "text": SYSTEM}]),
        HumanMessage(WEATHER),
        AIMessage("", tool_calls=[call]),
        ToolMessage("12 degrees and rain", tool_call_id="call_1"),
    ]
    assert make(standalone).bind_tools([TOOL]).invoke(history, tool_choice="none").content


class City(pydantic.BaseModel):
    city: str
    inhabitants: int


@all_chats
@pytest.mark.shows("structured output")
def test_structured_output_by_schema(standalone, make):
    found = make(standalone, max_tokens=120).with_structured_output(City, method="json_schema").invoke(DESCRIBE)
    assert isinstance(found, City)


@all_chats
@pytest.mark.shows("structured output")
def test_structured_output_by_json_mode(standalone, make):
    schema = {"title": "fruit", "type": "object", "properties": {"fruit": {"type": "string"}}}
    found = make(standalone, max_tokens=60).with_structured_output(schema, method="json_mode").invoke(FRUIT)
    assert isinstance(found["fruit"], str)


@all_embeddings
@pytest.mark.shows("embeddings")
def test_embeddings(standalone, make):
    model = make(standalone, model=EMBED) if make is inference_embeddings else make(standalone)
    vectors = model.embed_documents(["A cat sleeps.", "A kitten naps."])
    assert [len(vector) for vector in vectors] == [WIDTH, WIDTH]
    assert model.embed_query("A cat sleeps.") == pytest.approx(vectors[0], abs=1e-3)


@pytest.mark.client(INFERENCE)
@pytest.mark.shows("chat", "model info")
def test_a_model_that_is_named_nowhere_is_the_default_one(standalone, caplog):
    """The class takes `model`, and forgets a `model_name` without a word: then it asks /info and names no model."""
    model = inference_chat(standalone, model_name=CHAT)
    assert model.model_name is None
    assert model._model_name == CHAT
    assert "does not support model metadata" not in caplog.text
    assert ANSWER in model.invoke(ASKED).content


@pytest.mark.client(INFERENCE)
@pytest.mark.shows("embeddings", "model info")
def test_embeddings_without_a_model_ask_who_publishes_it(standalone):
    """It lowers the publisher's name, so one must be there; and sends `input_type: text`."""
    model = inference_embeddings(standalone)
    assert model._model_name
    assert len(model.embed_query("hello")) == WIDTH


@pytest.mark.client(INFERENCE)
@pytest.mark.shows("chat")
def test_stop_goes_out_as_a_string_and_extras_pass_through(standalone):
    answer = inference_chat(standalone, stop=ANSWER, model_kwargs={"top_k": 5}).invoke(ASKED)
    assert answer.content and ANSWER not in answer.content


@pytest.mark.client(INFERENCE)
@pytest.mark.shows("errors", "content filter")
def test_refusals_of_the_inference_classes(standalone):
    with pytest.raises(ClientAuthenticationError):
        inference_chat(standalone, credential="wrong", model=CHAT).invoke(ASKED)
    with pytest.raises(ResourceNotFoundError) as refused:
        inference_chat(standalone, model="gpt-nope").invoke(ASKED)
    assert refused.value.error.code == "unknown_model"
    with pytest.raises(HttpResponseError) as refused:
        inference_embeddings(standalone, model=EMBED, dimensions=5).embed_query("hello")
    assert (refused.value.status_code, refused.value.error.code) == (422, "parameter_not_supported")
    with pytest.raises(HttpResponseError) as refused:
        inference_chat(standalone, model=CHAT).invoke([HumanMessage(blocked_prompt())])
    assert (refused.value.status_code, refused.value.error.code) == (400, "content_filter")


@openai_chats
@pytest.mark.shows("errors", "content filter")
def test_refusals_of_the_openai_classes(standalone, make):
    with pytest.raises(openai.AuthenticationError):
        make(standalone, credential="wrong").invoke(ASKED)
    with pytest.raises(openai.NotFoundError) as refused:
        make(standalone, model="gpt-nope").invoke(ASKED)
    assert refused.value.code == "DeploymentNotFound"
    with pytest.raises(openai.BadRequestError) as refused:
        make(standalone).invoke([HumanMessage(blocked_prompt())])
    assert refused.value.code == "content_filter"
    assert refused.value.body["innererror"]["content_filter_result"]["violence"]["filtered"] is True
