"""The OpenAI SDK, as OpenAI on /v1 and as AzureOpenAI, unmodified, against real models."""

import openai
import pytest

CHAT = "smollm2-135m-instruct"
FRANCE = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(params=["/v1", "/openai/v1", "azure"])
def client(koine, request):
    if request.param == "azure":
        return openai.AzureOpenAI(azure_endpoint=koine.endpoint, api_key=koine.key, api_version="2024-10-21")
    return openai.OpenAI(base_url=koine.endpoint + request.param, api_key=koine.key)


def test_chat(client):
    answer = client.chat.completions.create(model=CHAT, messages=FRANCE, temperature=0, max_tokens=40)
    assert "Paris" in answer.choices[0].message.content
    assert answer._request_id


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
    assert "Paris" in text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0


def test_two_choices_differ_only_by_chance(client):
    answer = client.chat.completions.create(model=CHAT, messages=FRANCE, n=2, max_tokens=8, temperature=0)
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].message.content == answer.choices[1].message.content


def test_embeddings_come_as_base64_and_read_as_floats(client):
    answer = client.embeddings.create(model="all-minilm-l6-v2", input=["hello", "world"])
    assert [len(d.embedding) for d in answer.data] == [384, 384]
    assert sum(x * x for x in answer.data[0].embedding) == pytest.approx(1, abs=1e-3)


def test_completions(client):
    answer = client.completions.create(model=CHAT, prompt=["One, two, three,", "A, B, C,"], max_tokens=6, temperature=0)
    assert [c.index for c in answer.choices] == [0, 1]
    assert "four" in answer.choices[0].text
    assert answer.usage.completion_tokens <= 12


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-nope", messages=FRANCE)


def test_models_are_listed(koine):
    listed = openai.OpenAI(base_url=koine.endpoint + "/v1", api_key=koine.key).models.list()
    assert {CHAT, "all-minilm-l6-v2", "efficientnet-lite0-minilm"} <= {m.id for m in listed.data}
