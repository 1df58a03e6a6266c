"""Rows of the bench about content safety: one prompt alone, 32 callers on one core and on two, the first token with the filter.

Every text is another one, since a verdict is remembered.
"""

import json
import os
import random
import statistics
import threading
import time

# One token each for the model that judges: with the two that frame a text, `TOKENS` in all.
WORDS = "the old river runs past a stone house where my sister keeps bees and her son plays music every summer night".split()
TOKENS = 128
CALLERS = 32
# Asked of each server, by all callers together.
REQUESTS = 640
# One model under three names: without a policy, with one, and with one whose filter is behind the stream.
MODEL = "smollm2-135m-instruct"
FILTERS = {"unfiltered": "policy = ''", "buffered": "stream_filter = 'buffered'", "behind": "stream_filter = 'asynchronous'"}
DEPLOYMENTS = ", ".join(f"{{name = '{name}', service = 'chat', model = '{MODEL}', {more}}}" for name, more in FILTERS.items())


def texts(seed):
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choice(WORDS) for _ in range(TOKENS - 2))


def judge(post, address, text, connection=None):
    began = time.monotonic()
    post(address, "/contentsafety/text:analyze", {"text": text}, version="2024-09-01", connection=connection).read()
    return time.monotonic() - began


def alone(post, address):
    """Median seconds of one text at a time."""
    source = texts(1)
    for _ in range(5):
        judge(post, address, next(source))
    return statistics.median(judge(post, address, next(source)) for _ in range(60))


def rate(post, connect, address):
    """Texts per second of all callers together, each on one connection: what callers cost is taken from the second core."""

    def call(seed):
        source, connection = texts(seed), connect(address)
        for _ in range(REQUESTS // CALLERS):
            judge(post, address, next(source), connection)

    callers = [threading.Thread(target=call, args=(100 + n,)) for n in range(CALLERS)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    return REQUESTS / (time.monotonic() - began)


def first_token(post, address, deployment, number):
    """Seconds to the first text of an answer to a question that nobody asked before."""
    question = f"This is question {number}. Tell me about the sea, please."
    body = {"model": deployment, "messages": [{"role": "user", "content": question}], "max_tokens": 60, "stream": True}
    began, first = time.monotonic(), None
    for line in post(address, "/chat/completions", body):
        if first is None and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            first = time.monotonic() - began
    return first


def first_tokens(post, address):
    """Median per deployment, asked in turns so that whatever else the machine does slows all of them."""
    names = list(FILTERS)
    rounds = [[first_token(post, address, name, 10 * n + at) for at, name in enumerate(names)] for n in range(21)]
    return dict(zip(names, (statistics.median(column) for column in zip(*rounds[1:]))))


def with_server(start, measure, **how):
    server, address = start(**how)
    try:
        return measure(address)
    finally:
        server.terminate()
        server.wait(60)


def rows(start, post, connect):
    cores = sorted(os.sched_getaffinity(0))
    one, two = {cores[0]}, set(cores[:2])
    single, slow = with_server(start, lambda a: (alone(post, a), rate(post, connect, a)), cores=one)
    fast = with_server(start, lambda a: rate(post, connect, a), cores=two)
    firsts = with_server(start, lambda a: first_tokens(post, a), EDGE__DEPLOYMENTS=f"[{DEPLOYMENTS}]")
    off = firsts["unfiltered"]
    return [
        (f"{TOKENS} tokens judged on one core, p50", f"{single * 1000:.1f} ms", "< 15 ms"),
        (f"{CALLERS} callers, texts judged on one core", f"{slow:.0f} /s", ""),
        (f"{CALLERS} callers, two cores against one", f"{fast / slow:.2f} x", ">= 1.8 x"),
        ("first token without a filter, p50", f"{off * 1000:.0f} ms", ""),
        ("with the filter behind the stream", f"{firsts['behind'] / off:.2f} x", "<= 1.05 x"),
        ("with the filter before the stream", f"{firsts['buffered'] / off:.2f} x", ""),
    ]
