"""Starts Koine for the client tests, twice: in one process, and as the four services of docker-compose.yml.

The four are started with exactly the command line and environment that the compose file gives them (host names and ports
mapped to free ones of this machine), so a wrong option there fails here. Nothing listens on a fixed port.
"""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import yaml
from compatibility import (  # noqa: F401  hooks, which pytest finds by name
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_logreport,
    pytest_terminal_summary,
)

ROOT = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
KEY = "client-tests-key"
READY_WITHIN = 60
SERVICES = ("chat", "embedding", "content-safety", "edge")


@dataclasses.dataclass
class Koine:
    """A running server: where it is, and its processes by name."""

    endpoint: str
    key: str
    processes: dict

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return {name: process.wait(60) for name, process in self.processes.items()}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def drain(stream, lines):
    """Reads `stream` to its end on a thread, so that the process never blocks on a full pipe."""
    thread = threading.Thread(target=lambda: lines.extend(stream), daemon=True)
    thread.start()
    return thread


def clean_env(**extra):
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **extra}


def start_standalone():
    env = clean_env(
        STANDALONE__SERVICE__LISTEN="127.0.0.1:0",
        STANDALONE__SERVICE__ADMIN_LISTEN="",
        EDGE__AUTH__KEYS=json.dumps([KEY]),
    )
    process = subprocess.Popen([BINARIES / "koine", "up"], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    banner = {}
    for line in process.stdout:
        label, _, value = line.strip().partition("  ")
        banner[label] = value.strip()
        if line.startswith("curl"):
            break
    assert "Endpoint" in banner, f"no banner, exit code {process.poll()}"
    drain(process.stdout, [])
    koine = Koine(banner["Endpoint"], KEY, {"standalone": process})
    koine.banner = banner
    return koine


def compose():
    text = (ROOT / "docker-compose.yml").read_text()
    text = re.sub(r"\$\{KOINE_KEY:\?[^}]*\}", KEY, text)
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    return yaml.safe_load(text)


def compose_environment(service, ports):
    """The compose environment of `service` with hosts, ports and the model volume of this machine."""
    env = {}
    for name, value in compose()["services"][service]["environment"].items():
        value = re.sub(r"(0\.0\.0\.0|chat|embedding|content-safety):(\d{4,5})", lambda m: f"127.0.0.1:{ports(m[2])}", value)
        env[name] = value.replace("/models", str(ROOT / "models")) if name.endswith("MODELS__DIR") else value
    return env


def start_services(logs=BINARIES, **extra):
    """Starts the four, which log into a folder; `extra` are variables of this test, which go to all of them (each reads its own)."""
    chosen = {}

    def ports(port):
        return chosen.setdefault(port, free_port())

    processes = {}
    for service in SERVICES:
        env = clean_env(**compose_environment(service, ports) | extra)
        log = open(logs / f"clients-{service}.log", "w")
        processes[service] = subprocess.Popen([BINARIES / service], env=env, cwd="/", stderr=log)
        processes[service].koine_env = env
    koine = Koine(f"http://127.0.0.1:{ports('8080')}", KEY, processes)
    for service in SERVICES:
        wait_healthy(service, processes[service])
    return koine


def wait_healthy(service, process):
    """Asks as the compose file's health check does: by the binary itself."""
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{service} ended with {process.returncode}"
        check = subprocess.run([BINARIES / service, "healthcheck"], env=process.koine_env, capture_output=True)
        if check.returncode == 0:
            return
    raise AssertionError(f"{service} is not ready after {READY_WITHIN} s")


@pytest.fixture(scope="session")
def standalone():
    koine = start_standalone()
    yield koine
    assert koine.stop() == {"standalone": 0}


@pytest.fixture(scope="session")
def services():
    koine = start_services()
    yield koine
    assert set(koine.stop().values()) == {0}


@pytest.fixture(params=["one process", "four services"])
def koine(request):
    return request.getfixturevalue("standalone" if request.param == "one process" else "services")
