"""docs/migrate.md: every program in it runs as it reads afterwards, with the configuration that stands above it."""

import json
import re
import subprocess
import sys

import driver
import pytest
from conftest import BINARIES, KEY, ROOT, clean_env, drain

NODE_HOME = ROOT / "tests/clients/node"
GUIDE = (ROOT / "docs/migrate.md").read_text()
# A heading, and the block below it; headings may have several.
PROGRAMS = re.findall(r"```diff\n(.*?)```", GUIDE, re.DOTALL)
IMPORT = re.compile(
    r'^ (?:(?:from|import) (?P<python>\S+) import (?P<what>\w+)|import (?P<which>.*) from "(?P<node>\S+)";)$', re.MULTILINE
)
LINES = {"-": "before", "+": "after", " ": "both", "": "both"}


def read(program, side):
    lines = [line for line in program.splitlines() if LINES[line[:1]] in (side, "both")]
    return "\n".join(line[1:] for line in lines)


def client(program):
    """The package that it imports first."""
    found = IMPORT.search(program)
    return found["python"] or found["node"]


def for_node(program):
    return IMPORT.search(program)["node"] is not None


def name(program):
    found = IMPORT.search(program)
    return found["what"] or " ".join((found["node"], re.search(r"\w+", found["which"])[0]))


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
    wanted = {"azure.ai.inference", "openai", "langchain_openai", "langchain_azure_ai", "llama_index", "azure.ai.contentsafety"}
    said = [client(program) for program in PROGRAMS if not for_node(program)]
    for package in wanted:
        assert any(s == package or s.startswith(f"{package}.") for s in said), package
    assert {client(p) for p in PROGRAMS if for_node(p)} == {"@azure-rest/ai-inference", "openai"}
    assert len({name(program) for program in PROGRAMS}) == len(PROGRAMS) >= 11


@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_runs_as_it_reads_afterwards(endpoint, program):
    after = read(program, "after")
    assert "http://127.0.0.1:8080" in after and "my-key" in after
    after = after.replace("http://127.0.0.1:8080", endpoint).replace("my-key", KEY)
    # Node looks for packages from where it is.
    words = [driver.NODE, "--input-type=module", "-e"] if for_node(program) else [sys.executable, "-c"]
    where = NODE_HOME if for_node(program) else ROOT
    done = subprocess.run([*words, after], env=clean_env(), cwd=where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it prints what it got"


@pytest.mark.parametrize("program", PROGRAMS, ids=name)
def test_a_program_before_is_a_program_and_goes_to_the_cloud(program, tmp_path):
    before = read(program, "before")
    if for_node(program):
        (tmp_path / "before.mjs").write_text(before)
        subprocess.run([driver.NODE, "--check", tmp_path / "before.mjs"], check=True)
    else:
        compile(before, "before", "exec")
    assert re.search(r"https://my-resource\.(\w+\.)+com", before) and "127.0.0.1" not in before
    assert before.count("\n") <= read(program, "after").count("\n")


def test_a_client_for_node_says_why_it_needs_leave_for_http(endpoint):
    """What docs/migrate.md tells of `allowInsecureConnection` is so: without it nothing is sent."""
    (program,) = (p for p in PROGRAMS if client(p) == "@azure-rest/ai-inference")
    after = re.sub(r".*allowInsecureConnection.*\n", "", read(program, "after"))
    done = subprocess.run([driver.NODE, "--input-type=module", "-e", after.replace("http://127.0.0.1:8080", endpoint)],
                          env=clean_env(), cwd=NODE_HOME, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "allowInsecureConnection" in done.stderr
