"""Callers that ask without pause and look closely at what they get: a request counts only with its whole and right answer."""

import asyncio
import dataclasses
import itertools
import json
import random
import time

import upstream
import wire
from stack import KEY

INFERENCE = "api-version=2024-05-01-preview"
SAFETY = "api-version=2024-09-01"
DIMENSIONS = 384
CATEGORIES = 4
# What `Retry-After` says at least.
RETRY_S = 1.0
# No answer of the script takes a fifth of it; what takes longer counts as lost.
PATIENCE_S = 60.0


@dataclasses.dataclass
class Outcome:
    """What came of one request."""

    kind: str
    deployment: str
    caller: int
    began: float
    ended: float = 0.0
    ok: bool = False
    status: int = 0
    edge: str = ""
    # Which chat replica answered, where the answer says so.
    replica: str = ""
    # Why it is not ok.
    why: str = ""

    @property
    def took(self):
        return self.ended - self.began


def chat(deployment, number, stream):
    document = {
        "model": deployment,
        "messages": [{"role": "user", "content": f"Write note number {number}."}],
        "max_tokens": 100,
        "stream": stream,
    }
    return f"/chat/completions?{INFERENCE}", document


def message(kind, deployment, number):
    """The request of this kind, unlike any other in its text, so that nothing is remembered."""
    if kind in ("chat", "stream"):
        path, document = chat(deployment, number, kind == "stream")
    elif kind == "embedding":
        path, document = f"/embeddings?{INFERENCE}", {"input": [f"Note number {number} is about ducks."]}
    else:
        path, document = f"/contentsafety/text:analyze?{SAFETY}", {"text": f"Note number {number} is about ducks."}
    return wire.request("POST", path, json.dumps(document).encode(), api_key=KEY, content_type="application/json")


def judge(outcome, number, body, whole):
    """Fills in what the answer says, and whether it is what was asked for."""
    if outcome.kind == "stream" and outcome.status == 200:
        return judge_stream(outcome, number, body, whole)
    if not whole:
        outcome.why = "the answer was cut off"
        return
    document = json.loads(body)
    if outcome.status != 200:
        outcome.why = f"{outcome.status}: {document.get('error', {}).get('message', '')}"
    elif outcome.kind == "embedding":
        outcome.ok = len(document["data"][0]["embedding"]) == DIMENSIONS
    elif outcome.kind == "safety":
        outcome.ok = len(document["categoriesAnalysis"]) == CATEGORIES
    else:
        judge_text(outcome, number, document["choices"][0]["message"]["content"] or "")


def judge_stream(outcome, number, body, whole):
    text = ""
    done = False
    for line in body.decode(errors="replace").splitlines():
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: {") and line.endswith("}"):
            event = json.loads(line[6:])
            if "error" in event:
                outcome.why = f"error event: {event['error'].get('message', '')}"
            for choice in event.get("choices", []):
                text += choice["delta"].get("content") or ""
    judge_text(outcome, number, text)
    if not (done and whole):
        outcome.ok = False
        outcome.why = outcome.why or "the stream was cut off without a word"


def judge_text(outcome, number, text):
    outcome.replica = text[1:].partition("]")[0]
    outcome.ok = text == upstream.told(outcome.replica, number)
    if not outcome.ok and not outcome.why:
        outcome.why = f"the answer is not what the model said: {text[:200]!r}"


async def exchange(port, outcome, request):
    """All bytes of an answer, as far as they came: its head and the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=wire.LARGEST_HEAD)
    try:
        writer.write(request)
        head = await wire.read_head(reader)
        if head is None:
            raise ConnectionResetError("the connection ended without an answer")
        outcome.status, outcome.edge = head.status, head.headers.get("x-edge", "")
        raw = b""
        try:
            while piece := await reader.read(64 * 1024):
                raw += piece
        except ConnectionError:
            pass
        return wire.whole_body(head, raw)
    finally:
        writer.close()


class Load:
    """Callers at work; what came of their requests is in `outcomes`."""

    numbers = itertools.count(1)

    def __init__(self, port):
        self.port = port
        self.outcomes = []
        self.tasks = []
        self.stopping = False

    def start(self, callers, mix, pause=0.0):
        """So many more callers. `mix` is a list of kind and deployment, of which each request takes one by lot; `pause` the most
        seconds of a wait after what is not a conversation."""
        first = len(self.tasks)
        self.tasks += [asyncio.create_task(self.call(first + i, mix, pause)) for i in range(callers)]

    async def stop(self):
        """Lets what runs come to its end."""
        self.stopping = True
        await asyncio.gather(*self.tasks)
        return self.outcomes

    async def call(self, caller, mix, pause):
        lot = random.Random(caller)
        # Not all at the same moment.
        await asyncio.sleep(lot.uniform(0, 0.5))
        while not self.stopping:
            kind, deployment = lot.choice(mix)
            outcome = await self.once(caller, kind, deployment)
            if outcome.status in (429, 503):
                # As clients do that read `Retry-After`.
                await asyncio.sleep(RETRY_S)
            elif pause and kind in ("embedding", "safety"):
                await asyncio.sleep(lot.uniform(pause / 2, pause))

    async def once(self, caller, kind, deployment):
        number = next(self.numbers)
        outcome = Outcome(kind, deployment, caller, time.monotonic())
        request = message(kind, deployment, number)
        try:
            body, whole = await asyncio.wait_for(exchange(self.port, outcome, request), PATIENCE_S)
            judge(outcome, number, body, whole)
        except asyncio.TimeoutError:
            outcome.why = f"silence for {PATIENCE_S:.0f} s"
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            outcome.why = f"{type(error).__name__}: {error}"
        outcome.ended = time.monotonic()
        self.outcomes.append(outcome)
        return outcome
