"""Two replicas of each service, a Redis, the scripted upstream and the proxy, as processes of this machine.

Ports are free ones below those that the system gives to connections: a replica comes back at its own port, which no connection may
have taken meanwhile. Every process is ended by its id, whatever happens.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import wire

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
KEY = "chaos-key"
# What a Redis that is silent may cost. Longer than the default, so that it stands out from what 50 callers do to each other.
REDIS_TIMEOUT_MS = 500
# Of requests to `counted` in all, and of requests to `narrow` at the same time.
COUNTED = 400
NARROW = 5
READY_WITHIN_S = 60
# The services' own drain time, and a little for the rest.
STOPPED_WITHIN_S = 45
LAST_WORD_S = 10
LOWEST_PORT = 20000

SERVICES = ("chat", "embedding", "content-safety", "edge")
REPLICAS = tuple(f"{service}-{number}" for service in SERVICES for number in (1, 2))


class Ports:
    """Free ports, none twice."""

    def __init__(self):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        self.candidates = list(range(LOWEST_PORT, max(lowest, LOWEST_PORT + 5000)))
        random.shuffle(self.candidates)

    def next(self):
        while True:
            port = self.candidates.pop()
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port


class Process:
    """A program that can be ended and started again in the same place."""

    def __init__(self, name, command, logs, env=None, cwd="/"):
        self.name, self.command, self.cwd = name, command, cwd
        self.env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(env or {})}
        self.log = logs / f"{name}.log"
        self.child = None

    def start(self, **pipes):
        with open(self.log, "ab") as log:
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **pipes}
            # In a session of its own: Ctrl-C is for this script, which ends its children in order.
            self.child = subprocess.Popen(self.command, env=self.env, cwd=self.cwd, start_new_session=True, **pipes)

    @property
    def alive(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        if self.alive:
            self.child.send_signal(number)

    async def ended(self, within):
        """The exit code; an error where it goes on."""
        deadline = time.monotonic() + within
        while self.alive:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} did not end within {within} s")
            await asyncio.sleep(0.02)
        return self.child.returncode

    def resident_kib(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


class Service(Process):
    """A replica of a service."""

    def __init__(self, name, port, admin, logs, env):
        service = name.rpartition("-")[0]
        section = service.replace("-", "_").upper()
        listen = {
            f"{section}__SERVICE__LISTEN": f"127.0.0.1:{port}",
            f"{section}__SERVICE__ADMIN_LISTEN": f"127.0.0.1:{admin}",
        }
        super().__init__(name, [BINARIES / service], logs, {**listen, **env})
        self.service, self.port, self.admin = service, port, admin

    async def ready(self):
        deadline = time.monotonic() + READY_WITHIN_S
        while not await wire.is_ready(self.admin):
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready; see {self.log}")
            await asyncio.sleep(0.05)


class Stack:
    """All of it; `stop` it, whatever happened."""

    def __init__(self, logs):
        self.logs = logs
        self.folder = tempfile.TemporaryDirectory(prefix="koine-chaos-")
        self.processes = []
        self.services = {}
        self.proxy_port = self.upstream_port = None

    async def start(self):
        self.start_redis()
        self.upstream_port = await self.start_script("upstream")
        ports = Ports()
        places = {name: (ports.next(), ports.next()) for name in REPLICAS}
        for name, (port, admin) in places.items():
            env = self.environment(name, places)
            self.services[name] = self.keep(Service(name, port, admin, self.logs, env))
        for service in self.services.values():
            service.start()
        for service in self.services.values():
            await service.ready()
        edges = [f"{name}:{port}:{admin}" for name, (port, admin) in places.items() if name.startswith("edge")]
        self.proxy_port = await self.start_script("proxy", *edges)

    def keep(self, process):
        self.processes.append(process)
        return process

    async def start_script(self, name, *arguments):
        script = self.keep(Process(name, [sys.executable, HERE / f"{name}.py", *arguments], self.logs))
        script.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = await asyncio.wait_for(asyncio.to_thread(script.child.stdout.readline), READY_WITHIN_S)
        return int(line)

    def environment(self, name, places):
        models = {"MODELS__DIR": str(ROOT / "models"), "MODELS__OFFLINE": "true"}
        service = name.rpartition("-")[0]
        if service == "chat":
            base = f"http://127.0.0.1:{self.upstream_port}/{name}/v1"
            remotes = (f"{{name='{model}',base_urls=['{base}']}}" for model in ("steady", "quick", "slow", "narrow"))
            return {"CHAT__LOCAL": "[]", "CHAT__REMOTE": f"[{','.join(remotes)}]"}
        if service == "embedding":
            own = {f"EMBEDDING__{option}": value for option, value in models.items()}
            return own | {"EMBEDDING__SERVE": "['all-minilm-l6-v2']"}
        if service == "content-safety":
            own = {f"CONTENT_SAFETY__{option}": value for option, value in models.items()}
            return own | {"CONTENT_SAFETY__IMAGE_MODEL": ""}
        endpoints = {}
        for called in SERVICES[:3]:
            urls = [f"http://127.0.0.1:{places[f'{called}-{number}'][0]}" for number in (1, 2)]
            endpoints[f"EDGE__{called.replace('-', '_').upper()}__ENDPOINTS"] = json.dumps(urls)
        plenty = "{requests_per_minute=1000000,tokens_per_minute=1000000000,concurrent=10000}"
        return endpoints | {
            "EDGE__AUTH__KEYS": json.dumps([KEY]),
            "EDGE__STATE__REDIS_URL": f"redis+unix://{self.folder.name}/redis.sock",
            "EDGE__STATE__TIMEOUT_MS": str(REDIS_TIMEOUT_MS),
            # Everybody has limits, so that every request is counted; hardly any is refused for it.
            "EDGE__RATES__CLASSES": f"[{{name='plenty',limits={plenty}}}]",
            "EDGE__RATES__DEFAULT_CLASS": "plenty",
            "EDGE__RATES__DEPLOYMENTS": f"[{{deployments=['counted'],limits={{requests_per_day={COUNTED}}}}},"
            f"{{deployments=['narrow'],limits={{concurrent={NARROW}}}}}]",
            "EDGE__DEPLOYMENTS": "[{name='plain',service='chat',model='steady',policy=''},"
            "{name='counted',service='chat',model='quick',policy=''},"
            "{name='narrow',service='chat',model='narrow',policy=''},"
            "{name='slow',service='chat',model='slow',policy=''}]",
        }

    def start_redis(self):
        folder = Path(self.folder.name)
        # A socket that a crash left is in the way.
        (folder / "redis.sock").unlink(missing_ok=True)
        command = ["redis-server", "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no"]
        if not any(process.name == "redis" for process in self.processes):
            self.redis = self.keep(Process("redis", command, self.logs, cwd=folder))
        self.redis.start()

    async def restart(self, name, **env):
        """Starts a replica that has ended, with more of an environment."""
        service = self.services[name]
        service.env |= env
        service.start()
        await service.ready()

    async def stop(self):
        for process in reversed(self.processes):
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                await process.ended(LAST_WORD_S)
            except TimeoutError:
                process.signal(signal.SIGKILL)
                process.child.wait()
        self.folder.cleanup()
