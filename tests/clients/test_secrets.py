"""What must not come out comes out nowhere: not in the logs of the four services at `debug`, not in metrics, not in errors.

Each secret and each text is a word of its own, given to the services in the ways that an operator and a caller have. The Redis
whose password it is does not answer and the servers upstream fail, for failures are where secrets get into logs.
"""

import http.server
import json
import threading
import urllib.error
import urllib.request

import pytest
from conftest import SERVICES, free_port, start_services

WORDS = ("key", "wrong-key", "upstream-key", "redis-password", "token", "prompt", "embedded", "analysed", "blocked", "broken")
MARK = {word: f"hush-{word}-7c41e09b" for word in WORDS}
VERSION = "api-version=2024-05-01-preview"
SAFETY = "api-version=2024-09-01"
GOOD, REFUSING, DYING = "good", "refusing", "dying"


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers, or fails with every word that it was told."""

    def do_POST(self):
        told = self.rfile.read(int(self.headers["content-length"])).decode()
        model = json.loads(told)["model"]
        if model == GOOD:
            choice = {"index": 0, "delta": {"content": "well"}, "text": "well", "finish_reason": "stop"}
            self.answer(200, "text/event-stream", f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n")
        else:
            words = f"Incorrect API key provided: {self.headers['authorization']}; you said {told}"
            self.answer(401 if model == REFUSING else 500, "application/json", json.dumps({"error": {"message": words}}))

    def answer(self, status, kind, text):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def upstream():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def options(upstream):
    remote = "{{name='{0}',base_urls=['{1}'],api_key='{2}',completions=true,connection={{retries=1}}}}"
    remotes = ",".join(remote.format(name, upstream, MARK["upstream-key"]) for name in (GOOD, REFUSING, DYING))
    prefixes = [service.upper().replace("-", "_") for service in SERVICES]
    return {
        "EDGE__AUTH__KEYS": json.dumps([MARK["key"]]),
        "EDGE__STATE__REDIS_URL": f"redis://:{MARK['redis-password']}@127.0.0.1:{free_port()}",
        "EDGE__RATES__DEPLOYMENTS": f"[{{deployments=['{GOOD}'],limits={{requests_per_day=1000}}}}]",
        "EDGE__DOORS__TOKEN": MARK["token"],
        "CHAT__LOCAL": "[]",
        "CHAT__REMOTE": f"[{remotes}]",
        **{f"{prefix}__DOOR__TOKEN": MARK["token"] for prefix in prefixes if prefix != "EDGE"},
        **{f"{prefix}__SERVICE__TELEMETRY__LOG": "debug" for prefix in prefixes},
        **{f"{prefix}__SERVICE__DRAIN_DELAY_MS": "0" for prefix in prefixes},
    }


def ask(koine, path, body, key=MARK["key"], method="POST"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(koine.endpoint + path, data, {"content-type": "application/json", "api-key": key}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def sentence(word):
    return f"My cat is called {MARK[word]}. What should it eat?"


def said(word, **more):
    return {"messages": [{"role": "user", "content": sentence(word)}], **more}


def asked_well(koine):
    chat, lists = f"/chat/completions?{VERSION}", "/contentsafety/text/blocklists/hush"
    yield ask(koine, chat, said("prompt", model=GOOD))
    yield ask(koine, chat, said("prompt", model=GOOD, stream=True))
    yield ask(koine, f"/completions?{VERSION}", {"model": GOOD, "prompt": sentence("prompt")})
    yield ask(koine, f"/embeddings?{VERSION}", {"input": [sentence("embedded")]})
    yield ask(koine, f"/contentsafety/text:analyze?{SAFETY}", {"text": sentence("analysed")})
    yield ask(koine, f"{lists}?{SAFETY}", {"description": "words"}, method="PATCH")
    yield ask(koine, f"{lists}:addOrUpdateBlocklistItems?{SAFETY}", {"blocklistItems": [{"text": MARK["blocked"]}]})
    yield ask(koine, f"/contentsafety/text:analyze?{SAFETY}", {"text": sentence("blocked"), "blocklistNames": ["hush"]})


def asked_badly(koine):
    chat = f"/chat/completions?{VERSION}"
    yield ask(koine, chat, said("prompt", model=GOOD), key=MARK["wrong-key"])
    yield ask(koine, chat, said("prompt", model=REFUSING))
    yield ask(koine, chat, said("prompt", model=DYING))
    yield ask(koine, chat, said("prompt", model="nobody"))
    yield ask(koine, chat, said("prompt", model=GOOD, temperature=9))
    yield ask(koine, chat, json.dumps(said("broken")).encode()[:-2])
    yield ask(koine, f"/embeddings?{VERSION}", {"input": [MARK["embedded"]], "dimensions": 7})
    yield ask(koine, f"/contentsafety/text:analyze?{SAFETY}", {"text": MARK["analysed"], "categories": ["Rudeness"]})


def metrics(koine):
    for service, process in koine.processes.items():
        address = process.koine_env[f"{service.upper().replace('-', '_')}__SERVICE__ADMIN_LISTEN"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            yield f"metrics of {service}", answer.read().decode()


def test_no_secret_and_no_text_is_in_a_log_a_metric_or_an_error(upstream, tmp_path):
    koine = start_services(tmp_path, **options(upstream))
    try:
        well = list(asked_well(koine))
        assert [status for status, _ in well if status not in (200, 201)] == [], well
        badly = list(asked_badly(koine))
        assert all(400 <= status < 600 for status, _ in badly), badly
        texts = {f"error {n}": body for n, (_, body) in enumerate(badly)} | dict(metrics(koine))
    finally:
        ended = koine.stop()
    assert set(ended.values()) == {0}
    logs = {f"log of {s}": (tmp_path / f"clients-{s}.log").read_text() for s in SERVICES}
    for name, text in logs.items():
        assert '"level":"DEBUG"' in text, f"{name} is not what this test is about"
    # That something failed is said, in words of ours.
    assert "a model server failed" in logs["log of chat"] and "edge_requests_total" in texts["metrics of edge"]
    found = [(name, mark) for name, text in (texts | logs).items() for mark in MARK.values() if mark in text]
    assert not found, found
