"""Traces of the four real services: one tree for one request, content only where it is switched on, and no collector needed."""

import json
import re
import subprocess
import time

import pytest
from conftest import BINARIES, start_services
from traced import BODY, Collector, ask, endpoints, trace_of_one_chat, tree

CHAT = "chat smollm2-135m-instruct"
SCREEN = "inference.content_safety.v1.ContentSafetyService/Screen"
SECRET = "capital of France"


@pytest.fixture(scope="module")
def traced():
    return trace_of_one_chat()


def paths(spans):
    """The way from the root to each span, by names."""
    way, found = [], set()
    for depth, span in tree(spans):
        way[depth:] = [span["name"]]
        found.add(" > ".join(way))
    return found


def test_one_stream_is_one_trace_down_to_queue_batch_and_model(traced):
    spans, _ = traced
    assert len(list(tree(spans))) == len(spans), "every span is below the caller's"
    root = "POST /chat/completions"
    generate = f"{root} > {CHAT} > inference.chat.v1.ChatService/Generate"
    expected = {root, f"{root} > auth", f"{root} > limit", f"{root} > safety_in > {SCREEN}", f"{root} > safety_out > {SCREEN}"}
    expected |= {f"{generate} > {step}" for step in ("prepare", "queue", "prefill", "decode")}
    for direction in ("in", "out"):
        encode = f"{root} > safety_{direction} > {SCREEN} > encode koine-safety-minilm"
        expected |= {encode, f"{encode} > queue", f"{encode} > batch"}
    assert expected <= paths(spans), sorted(paths(spans))
    assert {span["service"] for span in spans} == {"koine-edge", "koine-chat", "koine-content-safety"}


def test_the_call_of_the_model_has_what_the_conventions_ask_for(traced):
    spans, _ = traced
    (call,) = [span for span in spans if span["name"] == CHAT]
    about = call["attributes"]
    assert call["kind"] == "SPAN_KIND_CLIENT"
    assert about["gen_ai.operation.name"] == "chat"
    assert about["gen_ai.provider.name"] == "koine"
    assert about["gen_ai.request.model"] == about["gen_ai.response.model"] == "smollm2-135m-instruct"
    assert about["gen_ai.response.finish_reasons"] in (["stop"], ["length"])
    assert about["gen_ai.usage.input_tokens"] > 10 and 0 < about["gen_ai.usage.output_tokens"] <= 24
    assert "first chunk" in call["events"]
    decode = next(span for span in spans if span["name"] == "decode")
    assert decode["attributes"]["koine.completion_tokens"] == about["gen_ai.usage.output_tokens"]
    assert SECRET not in json.dumps(spans)


def test_server_timing_names_every_step_of_a_filtered_stream(traced):
    _, headers = traced
    steps = [part.partition(";")[0] for part in headers["server-timing"].split(", ")]
    assert steps == ["auth", "limit", "safety_in", "queue", "model", "safety_out", "serialise", "total"]


def test_content_is_on_spans_only_where_it_is_switched_on():
    spans, _ = trace_of_one_chat(TRACE_CONTENT="true")
    (call,) = [span for span in spans if span["name"] == CHAT]
    asked, said = (json.loads(call["attributes"][f"gen_ai.{way}.messages"]) for way in ("input", "output"))
    assert [message["role"] for message in asked] == ["system", "user"]
    assert asked[1]["parts"] == [{"type": "text", "content": BODY["messages"][1]["content"]}]
    assert said[0]["role"] == "assistant" and said[0]["parts"][0]["content"]


def test_a_collector_that_is_away_disturbs_nobody_and_lines_have_the_ids_of_their_trace():
    away = Collector()
    away.spans()
    koine = start_services(**endpoints(away.endpoint, LOG_FORMAT="json"))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    try:
        began = time.monotonic()
        for _ in range(5):
            assert ask(koine, BODY, trace)[1].endswith("data: [DONE]\n\n")
        assert time.monotonic() - began < 60
        for service in koine.processes:
            env = koine.processes[service].koine_env
            assert subprocess.run([BINARIES / service, "healthcheck"], env=env, capture_output=True).returncode == 0
    finally:
        codes = koine.stop()
    assert set(codes.values()) == {0}, codes
    requests = lines("edge", "request")
    assert len(requests) == 5
    for line in requests:
        assert line["trace_id"] == trace and len(line["span_id"]) == 16
    told = lines("edge", "traces do not reach the collector; their spans are lost")
    assert [line["level"] for line in told] == ["WARN"], "once, however many batches fail"
    library = [line for line in lines("edge") if line["target"].startswith("opentelemetry") and line["level"] in ("WARN", "ERROR")]
    assert library == []


def lines(service, message=None):
    """What `service` logged last, as objects; only the lines that say `message`, where there is one."""
    written = [json.loads(text) for text in (BINARIES / f"clients-{service}.log").read_text().splitlines()]
    return [line for line in written if message in (None, line["fields"].get("message"))]


def test_without_a_collector_the_trace_of_a_request_joins_the_lines_of_the_services():
    koine = start_services(**endpoints("", LOG_FORMAT="json"))
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    try:
        ask(koine, BODY, theirs)
        ask(koine, BODY, None)
    finally:
        codes = koine.stop()
    assert set(codes.values()) == {0}, codes
    requests, answers = lines("edge", "request"), lines("chat", "answered")
    traces = [line["trace_id"] for line in requests]
    assert traces == [line["trace_id"] for line in answers]
    assert traces[0] == theirs
    assert re.fullmatch("[0-9a-f]{32}", traces[1]) and traces[1] != theirs
    for line in requests:
        # Each span once, with the id that the client reads in `x-request-id`.
        assert "span" not in line and [span["name"] for span in line["spans"]] == ["request"]
        assert line["spans"][0]["id"]
    assert "\x1b" not in (BINARIES / "clients-edge.log").read_text()
