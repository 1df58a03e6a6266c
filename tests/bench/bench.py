"""What one machine does with the default models: warm start, resident memory, eight chat streams against one, content safety.

Starts `koine up` itself on free ports, asks over plain HTTP (nothing between the clock and the server), prints a table.
Run by `make bench`, after `models pull`.
"""

import base64
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import content_safety

ROOT = Path(__file__).resolve().parents[2]
KEY = "bench-key"
VERSION = "2024-05-01-preview"
# Answered at length and harmlessly: a stream that ends early, or is cut by content safety, would leave the batch smaller.
WORDS = "Count from one to two hundred in words."


def start(cores=None, **options):
    """A server, on all cores or on those; `options` are variables of its configuration."""
    env = dict(
        os.environ,
        **options,
        STANDALONE__SERVICE__LISTEN="127.0.0.1:0",
        STANDALONE__SERVICE__ADMIN_LISTEN="",
        EDGE__AUTH__KEYS=json.dumps([KEY]),
    )
    server = subprocess.Popen(
        [Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/koine", "up"],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )
    for line in server.stdout:
        found = re.match(r"Endpoint\s+http://([\d.]+):(\d+)", line)
        if found:
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, (found[1], int(found[2]))
    sys.exit("koine up ended without a banner")


def connect(address):
    connection = http.client.HTTPConnection(*address, timeout=300)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def post(address, path, body, version=VERSION, connection=None):
    """The answer to `body`, on a connection of its own or on `connection`, whose last answer was read to its end."""
    connection = connection or connect(address)
    headers = {"api-key": KEY, "content-type": "application/json"}
    connection.request("POST", f"{path}?api-version={version}", json.dumps(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"{path}: {answer.status} {answer.read().decode()}")
    return answer


def chat(address, tokens, stream=False, seed=1):
    body = {
        "messages": [{"role": "user", "content": WORDS}],
        "max_tokens": tokens,
        "temperature": 0,
        "seed": seed,
        "stream": stream,
    }
    return post(address, "/chat/completions", body)


def stream_tokens(address, tokens, seed):
    usage = {}
    for line in chat(address, tokens, stream=True, seed=seed):
        if line.startswith(b"data: {"):
            usage = json.loads(line[6:]).get("usage") or usage
    return usage["completion_tokens"]


def rate(address, streams, tokens=128):
    """Generated tokens per second over `streams` at once."""
    counts = []
    threads = [
        threading.Thread(target=lambda s=s: counts.append(stream_tokens(address, tokens, s))) for s in range(streams)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def reading(address, first):
    """Tokens of a long prompt per second until the first of the answer; `first` is unlike that of any prompt before."""
    pages = (f"On page {first + page} there are {page % 7 + 20} lines of text." for page in range(60))
    body = {"messages": [{"role": "user", "content": " ".join(pages)}], "max_tokens": 1, "temperature": 0}
    began = time.monotonic()
    usage = json.loads(post(address, "/chat/completions", body).read())["usage"]
    return usage["prompt_tokens"] / (time.monotonic() - began)


def resident_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def first_token_seconds(address):
    began = time.monotonic()
    answer = chat(address, 8, stream=True)
    for line in answer:
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            return time.monotonic() - began
    sys.exit("no content in the stream")


def median(times):
    return statistics.median(times)


def main():
    began = time.monotonic()
    server, address = start()
    try:
        chat(address, 1).read()
        warm = time.monotonic() - began
        cat = base64.b64encode((ROOT / "tests/clients/data/cat.jpg").read_bytes()).decode()
        post(address, "/embeddings", {"input": ["warm"]}).read()
        post(address, "/images/embeddings", {"input": [{"image": f"data:image/jpeg;base64,{cat}"}]}).read()
        # In turns, so that whatever else the machine does slows both.
        rounds = [(rate(address, 1), rate(address, 8)) for _ in range(3)]
        one, eight = (median(column) for column in zip(*rounds))
        read = median([reading(address, 1000 * n) for n in range(1, 4)])
        first = median([first_token_seconds(address) for _ in range(5)])
        embeds = []
        for _ in range(20):
            at = time.monotonic()
            post(address, "/embeddings", {"input": ["The quick brown fox jumps over the lazy dog."]}).read()
            embeds.append(time.monotonic() - at)
        rows = [
            ("warm start to first answer", f"{warm:.2f} s", "< 5 s"),
            ("resident memory, all default models", f"{resident_mib(server.pid):.0f} MiB", "< 1229 MiB"),
            ("a prompt of 1,000 tokens and more read", f"{read:.0f} tokens/s", ""),
            ("one chat stream", f"{one:.0f} tokens/s", ""),
            ("eight chat streams", f"{eight:.0f} tokens/s", ""),
            ("eight against one", f"{eight / one:.2f} x", ">= 1.8 x"),
            ("first token of a short chat, p50", f"{first * 1000:.0f} ms", ""),
            ("one sentence embedded, p50", f"{median(embeds) * 1000:.1f} ms", ""),
        ]
    finally:
        server.terminate()
        server.wait(60)
    for name, value, bar in rows + content_safety.rows(start, post, connect):
        print(f"{name:<48} {value:>14}   {bar}")


if __name__ == "__main__":
    main()
