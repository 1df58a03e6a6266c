"""One filtered streaming chat through the four services, as a collector of traces sees it. `make trace` prints the tree."""

import json
import secrets
import subprocess
import sys
import urllib.request

from conftest import BINARIES, drain, start_services

PATH = "/chat/completions?api-version=2024-05-01-preview"
BODY = {
    "stream": True,
    "max_tokens": 24,
    "messages": [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "What is the capital of France?"}],
}
# What the tree shows of a span, without the words before the last dot.
SHOWN = ("http.response.status_code", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.finish_reasons",
         "koine.rows", "koine.tokens", "koine.prompt_tokens", "koine.cached_tokens", "koine.completion_tokens", "error.type")


def endpoints(endpoint, **more):
    """The variables that send the traces of every service to `endpoint`."""
    options = {"OTLP_ENDPOINT": endpoint, **more}
    services = ("EDGE", "CHAT", "EMBEDDING", "CONTENT_SAFETY")
    return {f"{service}__SERVICE__TELEMETRY__{name}": value for service in services for name, value in options.items()}


class Collector:
    """The collector of the Rust tests, as a process."""

    def __init__(self):
        self.process = subprocess.Popen([BINARIES / "collector"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self.process.stdout.readline().strip()

    def spans(self):
        """Everything that has come; the collector ends."""
        text, _ = self.process.communicate("", timeout=60)
        assert self.process.returncode == 0
        return json.loads(text)


def ask(koine, body, trace):
    """Sends `body` as a part of `trace`, if there is one; the headers and the text of the answer."""
    headers = {"content-type": "application/json", "api-key": koine.key}
    if trace:
        headers["traceparent"] = f"00-{trace}-{'1' * 16}-01"
    request = urllib.request.Request(koine.endpoint + PATH, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(answer.headers), answer.read().decode()


def trace_of_one_chat(body=None, **options):
    """The spans of one chat through four processes, and the headers of its answer. Each process flushes when it stops."""
    collector = Collector()
    koine = start_services(**endpoints(collector.endpoint, **options))
    trace = secrets.token_hex(16)
    try:
        headers, text = ask(koine, body or BODY, trace)
        assert text.endswith("data: [DONE]\n\n"), text
    finally:
        codes = koine.stop()
    assert set(codes.values()) == {0}, codes
    return [span for span in collector.spans() if span["trace"] == trace], headers


def tree(spans, parent="1" * 16, depth=0):
    """Each span with its depth, parents before children, in the order in which they began."""
    for span in sorted((s for s in spans if s["parent"] == parent), key=lambda s: s["began"]):
        yield depth, span
        yield from tree(spans, span["id"], depth + 1)


def line(depth, span, began):
    shown = {key.rpartition(".")[2]: span["attributes"][key] for key in SHOWN if key in span["attributes"]}
    words = " ".join(f"{key}={','.join(value) if isinstance(value, list) else value}" for key, value in shown.items())
    at, took = (span["began"] - began) / 1e6, (span["ended"] - span["began"]) / 1e6
    name = "  " * depth + span["name"]
    return f"{name:<62} {span['service']:<21} {at:>9.2f} {took:>9.2f}  {words}".rstrip()


def main():
    spans, headers = trace_of_one_chat()
    began = min(span["began"] for span in spans)
    print(f"trace {spans[0]['trace']}: {len(spans)} spans of {len({s['service'] for s in spans})} processes")
    print(f"{'span':<62} {'process':<21} {'at ms':>9} {'took ms':>9}")
    for depth, span in tree(spans):
        print(line(depth, span, began))
    print(f"\nServer-Timing: {headers['server-timing']}")


if __name__ == "__main__":
    sys.exit(main())
