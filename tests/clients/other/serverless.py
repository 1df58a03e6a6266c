"""Prompt flow's tools over its serverless connection, which puts /v1 behind the endpoint."""

import logging

from promptflow.connections import ServerlessConnection
from promptflow.tools.embedding import embedding
from promptflow.tools.llm import llm

from report import asked, report

# The tools report every refusal to the log as well.
logging.disable(logging.CRITICAL)

ASK = asked()
HERE = ServerlessConnection(api_key=ASK["key"], api_base=ASK["endpoint"])
PROMPT = f"# system:\n{ASK['messages'][0]['content']}\n\n# user:\n{ASK['messages'][1]['content']}\n"


def chat(prompt=PROMPT, connection=HERE, **options):
    return llm(connection=connection, prompt=prompt, **{"temperature": 0, "max_tokens": 40} | options)


def complete(**options):
    # As the tool sends it: best_of, n, echo, an empty logit_bias and an empty user.
    return llm(connection=HERE, prompt="One, two, three,", api="completion", temperature=0, max_tokens=6, **options)


report(
    {
        "chat": chat,
        "chat of a named model": lambda: chat(model=ASK["chat"]),
        "stream": lambda: list(chat(stream=True)),
        "tools": lambda: chat(
            f"# user:\n{ASK['weather']}\n", tools=[ASK["tool"]], tool_choice="required", max_tokens=120
        ),
        "json": lambda: chat(f"# user:\n{ASK['fruit']}\n", response_format={"type": "json_object"}, max_tokens=60),
        "completion": lambda: complete(model=ASK["chat"]),
        "completion of no model": complete,
        "completion stream": lambda: list(complete(model=ASK["chat"], stream=True)),
        "embedding": lambda: embedding(HERE, "hello", model=ASK["embed"]),
        "embedding of no model": lambda: embedding(HERE, "hello", model=""),
        "wrong key": lambda: chat(connection=ServerlessConnection(api_key="wrong", api_base=ASK["endpoint"])),
        "unknown model": lambda: chat(model="gpt-nope"),
        "blocked": lambda: chat(f"# user:\n{ASK['blocked']}\n"),
    }
)
