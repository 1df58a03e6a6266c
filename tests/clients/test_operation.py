"""What an operator relies on: the banner, the curl lines of docs/api.md, health, and a stop that loses nothing."""

import base64
import json
import re
import shlex
import signal
import subprocess
import threading
import urllib.error
import urllib.request

import pytest
from conftest import BINARIES, KEY, ROOT, SERVICES, start_services, start_standalone

VERSION = "api-version=2024-05-01-preview"


def post(koine, path, body):
    request = urllib.request.Request(
        koine.endpoint + path,
        json.dumps(body).encode(),
        {"content-type": "application/json", "api-key": koine.key},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


@pytest.mark.parametrize("path, item", [("/embeddings", "a"), ("/images/embeddings", {"image": "CAT"})])
def test_embeddings_say_how_long_they_waited_for_the_model(standalone, path, item):
    if path.startswith("/images"):
        cat = base64.b64encode((ROOT / "tests/clients/data/cat.jpg").read_bytes()).decode()
        item = {"image": f"data:image/jpeg;base64,{cat}"}
    headers = {"content-type": "application/json", "api-key": standalone.key}
    body = json.dumps({"input": [item]}).encode()
    request = urllib.request.Request(f"{standalone.endpoint}{path}?{VERSION}", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert 0 < float(timing["queue"]) < float(timing["total"]) and float(timing["model"]) > 0


def test_banner_names_everything_and_its_curl_line_works(standalone):
    banner = standalone.banner
    assert banner["Key"] == KEY
    assert banner["Chat"] == "smollm2-135m-instruct"
    assert banner["Embeddings"] == "all-minilm-l6-v2"
    assert banner["Image embeddings"].startswith("efficientnet-lite0")
    curl = next(line for line in banner if line.startswith("curl"))
    answer = json.loads(subprocess.run(shlex.split(curl), capture_output=True, check=True).stdout)
    assert answer["choices"][0]["message"]["content"]


def api_commands():
    text = (ROOT / "docs/api.md").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("curl ") and not line.endswith("...")]


@pytest.mark.parametrize("command", api_commands(), ids=lambda c: re.search(r"(/[a-z/:A-Z0-9]+)[?\"' ]", c)[1])
def test_curl_lines_of_the_guide_work(standalone, command):
    environment = {"ENDPOINT": standalone.endpoint, "KEY": standalone.key}
    done = subprocess.run(["bash", "-c", command], env={**environment, "PATH": "/usr/bin:/bin"}, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    if text.startswith("data: "):
        assert text.endswith("data: [DONE]\n\n")
    else:
        assert "error" not in json.loads(text), text


def test_the_guide_has_a_curl_line_for_every_route():
    said = " ".join(api_commands())
    for route in ("/chat/completions", "/completions", "/embeddings", "/images/embeddings", "/info"):
        assert route in said


def test_config_check_and_models_verify_succeed():
    for words in (["config", "check"], ["models", "verify"]):
        done = subprocess.run([BINARIES / "koine", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_config_check_names_every_wrong_option(tmp_path):
    file = tmp_path / "koine.toml"
    file.write_text("[edge.limits]\nbody_bytes = 'many'\n[chat]\nmodle = 1\n[emebdding]\n")
    done = subprocess.run(
        [BINARIES / "koine", "--config", file, "config", "check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    for name in ("edge.limits.body_bytes", "chat.modle", "emebdding"):
        assert name in done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_refuses_an_unknown_option_by_name(service):
    variable = f"{service.upper().replace('-', '_')}__SERVICE__LISTN"
    done = subprocess.run([BINARIES / service, "--check"], env={variable: "x"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "service.listn" in done.stderr


@pytest.mark.parametrize("words", [["edge", "--check"], ["koine", "config", "check"]], ids=" ".join)
def test_an_address_that_others_reach_needs_keys_and_the_check_says_so(words, tmp_path):
    section = "EDGE" if words[0] == "edge" else "STANDALONE"
    listen = {f"{section}__SERVICE__LISTEN": "0.0.0.0:8080"}

    def check(**more):
        return subprocess.run(
            [BINARIES / words[0], *words[1:]], cwd=tmp_path, env={**listen, **more}, capture_output=True, text=True
        )

    assert check().returncode == 2 and "`edge.auth.keys`: no keys, but others can reach" in check().stderr
    assert check(EDGE__AUTH__KEYS='["k"]').returncode == 0
    assert check(EDGE__AUTH__DISABLED="true").returncode == 0


def test_whoever_reads_only_the_first_lines_of_an_answer_sees_no_panic():
    shown = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {BINARIES / 'koine'} config show | head -1"], capture_output=True, text=True
    )
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == 1 and not shown.stderr, shown


def stream(koine, outcomes, started, tokens=48):
    """One streamed chat; notes whether it was whole."""
    body = {"messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": tokens, "stream": True}
    request = urllib.request.Request(
        f"{koine.endpoint}/chat/completions?{VERSION}",
        json.dumps(body).encode(),
        {"content-type": "application/json", "api-key": koine.key},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            first = answer.readline()
            started.release()
            outcomes.append((first + answer.read()).endswith(b"data: [DONE]\n\n"))
    except (urllib.error.URLError, OSError) as lost:
        started.release()
        outcomes.append(lost)


def under_load(koine, streams=6):
    outcomes, started = [], threading.Semaphore(0)
    threads = [threading.Thread(target=stream, args=(koine, outcomes, started)) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert started.acquire(timeout=60)
    return threads, outcomes


def test_standalone_stopped_under_load_finishes_every_accepted_stream():
    koine = start_standalone()
    threads, outcomes = under_load(koine)
    assert koine.stop() == {"standalone": 0}
    for thread in threads:
        thread.join()
    assert outcomes == [True] * len(threads)


@pytest.mark.parametrize("victim", ["edge", "chat"])
def test_a_service_stopped_under_load_finishes_every_accepted_stream(victim):
    koine = start_services()
    try:
        threads, outcomes = under_load(koine)
        koine.processes[victim].send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert outcomes == [True] * len(threads)
        assert koine.processes[victim].wait(60) == 0
        if victim == "chat":
            status, body = post(koine, f"/chat/completions?{VERSION}", {"messages": [{"role": "user", "content": "hi"}]})
            assert (status, body["error"]["code"]) == (503, "ServiceUnavailable")
    finally:
        koine.stop()
