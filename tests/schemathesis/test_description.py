"""The description that the server publishes is a valid OpenAPI document, and the server keeps what it says.

Schemathesis makes requests of the description and holds the answers against it. The server runs over deterministic fakes, so
what is tried is the whole way but for the models. What is made is the same on every run.
"""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
# The whole run takes a minute; this is for a machine that is much slower.
PATIENCE_S = 900


@pytest.fixture(scope="module")
def server():
    fakes = os.environ.get("KOINE_FAKES", ROOT / "target/release/fakes")
    process = subprocess.Popen([fakes], stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), "the server did not start"
    yield url
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


def test_the_description_is_a_valid_document(server):
    document = requests.get(f"{server}/openapi.json", timeout=10).json()
    errors = [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    assert not errors, errors


def test_schemathesis_finds_no_violation(server):
    command = [pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", "schemathesis.toml"]
    command += ["run", f"{server}/openapi.json", "--header", "api-key:golden-key"]
    # One family of dry runs is enough: they are the same handlers as the routes behind the prefix.
    command += ["--exclude-path-regex", "^/dry-run/(api|models|openai|v1)/"]
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=PATIENCE_S)
    print(run.stdout[-4000:])
    assert run.returncode == 0, run.stdout[-20000:] + run.stderr
