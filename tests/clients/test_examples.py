"""The programs of examples/ against the four services: as their heads say to run them, and with what they are said to print.

Beside them, what docs/grpc.md says of every service alike: health by name, reflection, limits, cancelled calls.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from conftest import BINARIES, ROOT, clean_env, free_port, wait_healthy
from grpc_health.v1 import health_pb2, health_pb2_grpc

sys.path.insert(0, str(ROOT / "tests/chart"))
import tools

PYTHON = ROOT / "examples/python/services.py"
SERVICES = ("chat", "embedding", "content-safety")
NAMES = {
    "chat": "inference.chat.v1.ChatService",
    "embedding": "inference.embedding.v1.EmbeddingService",
    "content-safety": "inference.content_safety.v1.ContentSafetyService",
}
# What both print: the same calls get the same answers, whoever makes them.
SAID = """\
model: smollm2-135m-instruct
finished: FINISH_REASON_STOP
tokens: 16 \\+ \\d+
answer: .*Paris.*
left after 2 pieces
same: 0\\.[67]\\d
other: -?0\\.[01]\\d
blocked: true
jailbreak: true
refused: UNKNOWN_MODEL model: unknown model `nobody`; known models: `smollm2-135m-instruct`
"""


def address(services, name, option="LISTEN"):
    return services.processes[name].koine_env[f"{name.upper().replace('-', '_')}__SERVICE__{option}"]


# `python` is that of the environment, as in one that is activated.
IN_FRONT = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def ran(command, cwd=ROOT, **env):
    env = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The commands in the program's head, to be typed in a fresh copy of the repository.
HEAD = re.findall(r"^    (\S.*)$", PYTHON.read_text().split('"""')[1], re.MULTILINE)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy that has what those commands read, and nothing that they make."""
    copy = tmp_path_factory.mktemp("copy")
    for part in ("proto", "examples"):
        shutil.copytree(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="module")
def stubs(copy):
    """Made by the head's lines as they stand there, but for the first (these tests have what it installs) and the last."""
    assert HEAD[0] == "pip install -r examples/python/requirements.txt" and "services.py" in HEAD[-1]
    ran(["bash", "-ec", "\n".join(HEAD[1:-1])], cwd=copy, PATH=IN_FRONT)
    return copy / "stubs"


@pytest.fixture(scope="module")
def chat_stubs(stubs):
    sys.path.insert(0, str(stubs))
    from inference.chat.v1 import chat_pb2, chat_pb2_grpc

    yield chat_pb2, chat_pb2_grpc
    sys.path.remove(str(stubs))


def test_the_rust_example_prints_what_it_is_said_to(services):
    said = ran([BINARIES / "grpc-example", *(f"http://{address(services, name)}" for name in SERVICES)])
    assert re.fullmatch(SAID, said), said


def test_the_python_example_prints_the_same(services, copy, stubs):
    command = HEAD[-1]
    for name, port in zip(SERVICES, (50051, 50052, 50053)):
        assert f"127.0.0.1:{port}" in command
        command = command.replace(f"127.0.0.1:{port}", address(services, name))
    said = ran(["bash", "-ec", command], cwd=copy, PATH=IN_FRONT)
    assert re.fullmatch("health: SERVING\n" + SAID, said), said


@pytest.mark.parametrize("command", ["rust", "python"])
def test_an_example_without_addresses_says_what_it_wants(command, stubs):
    words = [BINARIES / "grpc-example"] if command == "rust" else [sys.executable, PYTHON]
    done = subprocess.run(words, env={"PYTHONPATH": str(stubs)}, capture_output=True, text=True)
    assert done.returncode == 1 and "CHAT EMBEDDING CONTENT_SAFETY" in done.stderr


def test_what_the_python_example_needs_is_what_these_tests_install():
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count("examples/python/requirements.txt") == 2, "as a prerequisite of the environment, and installed"


@pytest.mark.parametrize("name", SERVICES)
def test_health_is_asked_by_the_service_s_name(services, name):
    with grpc.insecure_channel(address(services, name)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=NAMES[name]), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            stub.Check(health_pb2.HealthCheckRequest(service="koine"), timeout=5)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("name", SERVICES)
def test_reflection_of_both_versions_lists_the_services(services, name, version):
    """Asked on the wire: a ServerReflectionRequest with `list_services`, field 7, is `3a 00`."""
    with grpc.insecure_channel(address(services, name)) as channel:
        ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        answer = next(iter(ask(iter([b"\x3a\x00"]), timeout=5)))
    assert NAMES[name].encode() in answer and b"grpc.health.v1.Health" in answer


def test_a_message_over_the_limit_is_refused(services, chat_stubs):
    pb2, pb2_grpc = chat_stubs
    part = pb2.ContentPart(text="x" * (64 * 1024 * 1024 + 1))
    request = pb2.GenerateRequest(model="any", messages=[pb2.Message(role=pb2.ROLE_USER, content=[part])])
    with grpc.insecure_channel(address(services, "chat")) as channel, pytest.raises(grpc.RpcError) as refused:
        list(pb2_grpc.ChatServiceStub(channel).Generate(request, timeout=30))
    assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE


def test_a_compressed_message_is_refused(services, chat_stubs):
    pb2, pb2_grpc = chat_stubs
    with grpc.insecure_channel(address(services, "chat")) as channel, pytest.raises(grpc.RpcError) as refused:
        pb2_grpc.ChatServiceStub(channel).ListModels(pb2.ListModelsRequest(), timeout=5, compression=grpc.Compression.Gzip)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_a_call_that_its_client_gave_up_frees_its_place(services, chat_stubs, how):
    """Seen in the service's own metric: no sequence is left although thousands of tokens were allowed."""
    pb2, pb2_grpc = chat_stubs
    part = pb2.ContentPart(text="Tell a very long story.")
    request = pb2.GenerateRequest(
        model="smollm2-135m-instruct",
        messages=[pb2.Message(role=pb2.ROLE_USER, content=[part])],
        sampling=pb2.Sampling(max_tokens=4000, stop=["\u2603"], temperature=2),
    )
    with grpc.insecure_channel(address(services, "chat")) as channel:
        call = pb2_grpc.ChatServiceStub(channel).Generate(request, timeout=60 if how == "cancelled" else 1)
        pieces = (event for event in call if event.WhichOneof("event") == "text")
        next(pieces)
        if how == "cancelled":
            call.cancel()
        with pytest.raises(grpc.RpcError) as ended:
            list(pieces)
    code = {"cancelled": grpc.StatusCode.CANCELLED, "deadline": grpc.StatusCode.DEADLINE_EXCEEDED}[how]
    assert ended.value.code() == code
    # Each look takes a request; far fewer would do than the answer's thousands of steps.
    assert any(running(services) == 0 for _ in range(500))


def running(services):
    with urllib.request.urlopen(f"http://{address(services, 'chat', 'ADMIN_LISTEN')}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    values = re.findall(r"^chat_active_sequences\S* (\S+)$", text, re.MULTILINE)
    assert values, "the metric that this looks at is gone"
    return sum(map(float, values))


def test_a_service_that_stops_says_so_refuses_new_calls_and_finishes_the_others(chat_stubs):
    pb2, pb2_grpc = chat_stubs
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    env = clean_env(CHAT__SERVICE__LISTEN=listen, CHAT__SERVICE__ADMIN_LISTEN=admin, CHAT__MODELS__OFFLINE="true")
    process = subprocess.Popen([BINARIES / "chat"], env=env, cwd=ROOT, stderr=subprocess.DEVNULL)
    process.koine_env = env
    try:
        wait_healthy("chat", process)
        with grpc.insecure_channel(listen) as channel:
            chat, health = pb2_grpc.ChatServiceStub(channel), health_pb2_grpc.HealthStub(channel)
            watched = health.Watch(health_pb2.HealthCheckRequest(service=NAMES["chat"]), timeout=60)
            assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
            part = pb2.ContentPart(text="Tell a long story.")
            request = pb2.GenerateRequest(
                model="smollm2-135m-instruct",
                messages=[pb2.Message(role=pb2.ROLE_USER, content=[part])],
                sampling=pb2.Sampling(max_tokens=150, temperature=0),
            )
            story = chat.Generate(request, timeout=60)
            assert next(story).WhichOneof("event") == "started"
            process.terminate()
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError) as refused:
                chat.ListModels(pb2.ListModelsRequest(), timeout=5)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert list(story)[-1].WhichOneof("event") == "usage"
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)


# ------------------------------------------------------------------------------------------------ docs/grpc.md

GUIDE = (ROOT / "docs/grpc.md").read_text()
COMMANDS = re.findall(r"^call .*$", GUIDE, re.MULTILINE)


@pytest.fixture(scope="module")
def call(services, tmp_path_factory):
    """A function that runs a command of the guide as it stands there; only the ports are those of this run."""
    setup = re.search(r"```bash\n(CHAT=.*?)```", GUIDE, re.DOTALL)[1]
    for name, port in (("chat", 50051), ("embedding", 50052), ("content-safety", 50053)):
        assert f"127.0.0.1:{port}/" in setup
        setup = setup.replace(f"127.0.0.1:{port}/", f"{address(services, name)}/")
    folder = tmp_path_factory.mktemp("bin")
    (folder / "buf").symlink_to(tools.program("buf"))
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}

    def run(command):
        script = f"shopt -s expand_aliases\n{setup}\n{command}\n"
        return subprocess.run(["bash", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


def test_the_guide_has_an_example_of_every_call():
    protos = "".join(file.read_text() for file in (ROOT / "proto").rglob("*.proto"))
    assert set(re.findall(r"^  rpc (\w+)\(", protos, re.MULTILINE)) == {re.search(r"/(\w+)", c)[1] for c in COMMANDS}


def test_every_command_of_the_guide_works(call):
    """In the order in which they stand there: blocklists are made, used and removed."""
    for command in COMMANDS:
        done = call(command)
        if "/DetectProtected" in command:
            assert '"code": "not_found"' in done.stderr and "content_safety.protected.dir" in done.stderr, command
        else:
            assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_guide_s_tool_call_and_schema_give_what_they_promise(call):
    tool, schema = (next(c for c in COMMANDS if word in c) for word in ("toolChoice", "schemaJson"))
    assert "FINISH_REASON_TOOL_CALLS" in call(tool).stdout
    texts = re.findall(r'"text": ("(?:[^"\\]|\\.)*")', call(schema).stdout)
    assert json.loads("".join(json.loads(text) for text in texts))["fruit"] in ("pear", "fig")


def test_the_guide_s_errors_are_those_of_the_code():
    source = (ROOT / "crates/api-types/src/error.rs").read_text()
    grpc_of = re.search(r"pub const fn grpc\(.*?\n    }\n", source, re.DOTALL)[0]
    arms = re.findall(r"((?:Self::\w+\s*\|?\s*)+)=> (?:\{\s*)?tonic::Code::(\w+)", grpc_of)
    codes = {name: code for names, code in arms for name in re.findall(r"Self::(\w+)", names)}

    def upper(name):
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()

    known = {upper(name): upper(code) for name, code in codes.items()}
    said = dict(re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", GUIDE, re.MULTILINE))
    assert len(known) > 20 and len(said) > 10
    for reason, status in said.items():
        assert known.get(reason) == status, reason
