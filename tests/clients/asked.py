"""What every client is asked, whatever language it is written in: one place, so that all are asked the same."""

from pathlib import Path

from conftest import ROOT

CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
IMAGES = "efficientnet-lite0-minilm"
ONLY_IMAGES = "efficientnet-lite0"
WIDTH = 384

CAT = Path(__file__).parent / "data/cat.jpg"
COFFEE = Path(__file__).parent / "data/coffee.jpg"

# The model is a small one: it knows this answer, and it is held to tools and schemas rather than asked for them.
SYSTEM, QUESTION, ANSWER = "Answer in one sentence.", "What is the capital of France?", "Paris"
FRANCE = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
WEATHER = "What is the weather in Oslo?"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Where nothing holds the model to a schema, it needs an example to come to an end.
FRUIT = 'Name a fruit as JSON, like {"fruit": "pear"}.'
DESCRIBE = "Describe Paris as JSON with city and inhabitants."
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
SMOKE = ROOT / "crates/content-safety/training/authored/smoke.tsv"


def blocked_prompt():
    """The first text that the default policy must block for violence."""
    lines = (line.split("\t") for line in SMOKE.read_text().splitlines() if not line.startswith("#"))
    return next(text for expected, category, text in lines if (expected, category) == ("block", "violence"))


def for_driver(koine):
    """The same for a client in another process; see driver.py."""
    return {
        "endpoint": koine.endpoint,
        "key": koine.key,
        "chat": CHAT,
        "embed": EMBED,
        "images": IMAGES,
        "cat": str(CAT),
        "messages": FRANCE,
        "weather": WEATHER,
        "tool": TOOL,
        "fruit": FRUIT,
        "describe": DESCRIBE,
        "schema": SCHEMA,
        "blocked": blocked_prompt(),
    }
