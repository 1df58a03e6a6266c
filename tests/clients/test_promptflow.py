"""Prompt flow's LLM and embedding tools over its serverless connection; they run in other/serverless.py."""

import json

import driver
import pytest
from asked import ANSWER, WIDTH

pytestmark = pytest.mark.client("promptflow-tools, serverless connection")


@pytest.fixture(scope="module")
def seen(standalone):
    return driver.python(driver.OTHER_PYTHON, "serverless.py", standalone)


@pytest.mark.shows("chat")
def test_chat_without_and_with_a_model(seen):
    """The tool sends `model: ""` where the flow names none."""
    assert ANSWER in seen.value("chat")
    assert seen.value("chat of a named model") == seen.value("chat")


@pytest.mark.shows("streaming")
def test_stream(seen):
    assert "".join(seen.value("stream")) == seen.value("chat")


@pytest.mark.shows("tools")
def test_tools(seen):
    call = seen.value("tools")["tool_calls"][0]
    assert call["function"]["name"] == "get_weather"
    assert "city" in json.loads(call["function"]["arguments"])


@pytest.mark.shows("structured output")
def test_json_object(seen):
    assert isinstance(json.loads(seen.value("json")), dict)


@pytest.mark.shows("completions")
def test_completions(seen):
    assert "four" in seen.value("completion")
    assert "".join(seen.value("completion stream")) == seen.value("completion")


@pytest.mark.shows("embeddings")
def test_embeddings(seen):
    assert len(seen.value("embedding")) == WIDTH
    assert seen.value("embedding of no model") == pytest.approx(seen.value("embedding"), abs=1e-6)


@pytest.mark.shows("errors")
@pytest.mark.parametrize(
    ("case", "kind"), [("wrong key", "AuthenticationError"), ("unknown model", "NotFoundError")], ids=["key", "model"]
)
def test_refusals(seen, case, kind):
    """Wrapped by the tool, which names the client's own class in the message."""
    raised = seen.raised(case)
    assert "WrappedOpenAIError" in raised["kinds"]
    assert kind in raised["message"]


@pytest.mark.shows("content filter")
def test_a_blocked_prompt(seen):
    raised = seen.raised("blocked")
    assert "WrappedOpenAIError" in raised["kinds"] and "BadRequestError" in raised["message"]
    assert "The response was filtered" in raised["message"]
