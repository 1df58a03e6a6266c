"""docs/migrate.md: every program in it runs as it reads afterwards, with the configuration that stands above it."""

import json
import re
import subprocess
import sys

import pytest
from conftest import BINARIES, KEY, ROOT, clean_env, drain

GUIDE = (ROOT / "docs/migrate.md").read_text()
# A heading, and the block below it; headings may have several.
PROGRAMS = re.findall(r"```diff\n(.*?)```", GUIDE, re.DOTALL)
LINES = {"-": "before", "+": "after", " ": "both", "": "both"}


def read(program, side):
    lines = [line for line in program.splitlines() if LINES[line[:1]] in (side, "both")]
    return "\n".join(line[1:] for line in lines)


def name(program):
    return re.search(r"^ (?:from|import) \S+ import (\w+)$", program, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("migrate") / "koine.toml"
    file.write_text(re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[1])
    env = clean_env(
        STANDALONE__SERVICE__LISTEN="127.0.0.1:0", STANDALONE__SERVICE__ADMIN_LISTEN="", EDGE__AUTH__KEYS=json.dumps([KEY])
    )
    words = [BINARIES / "koine", "--config", file, "up"]
    process = subprocess.Popen(words, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = next((line.split()[1] for line in process.stdout if line.startswith("Endpoint")), None)
    assert found, f"no banner, exit code {process.poll()}"
    drain(process.stdout, [])
    yield found
    process.terminate()
    assert process.wait(60) == 0


def test_every_client_of_the_cloud_has_a_program():
    clients = ("azure.ai.inference", "openai", "langchain_openai", "llama_index", "azure.ai.contentsafety")
    for client in clients:
        assert any(f" from {client}" in program for program in PROGRAMS), client
    assert len({name(program) for program in PROGRAMS}) == len(PROGRAMS) >= 6


@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_runs_as_it_reads_afterwards(endpoint, program):
    after = read(program, "after")
    assert "http://127.0.0.1:8080" in after and "my-key" in after
    after = after.replace("http://127.0.0.1:8080", endpoint).replace("my-key", KEY)
    done = subprocess.run([sys.executable, "-c", after], env=clean_env(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it prints what it got"


@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_before_is_a_program_and_goes_to_the_cloud(program):
    before = read(program, "before")
    compile(before, "before", "exec")
    assert re.search(r"https://my-resource\.(\w+\.)+com", before) and "127.0.0.1" not in before
    assert before.count("\n") <= read(program, "after").count("\n")
