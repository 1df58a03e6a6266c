"""What the runs came to: a table for people, and the same as a page of the documentation."""

import dataclasses
import os
import re
import statistics
from pathlib import Path

COLUMNS = ("fault", "requests", "failed", "lost", "worst added latency", "bar", "met")

PAGE = """# Chaos

What becomes of requests while parts of Koine die, restart, go silent or slow down. Written by `make chaos`; do not edit it.

{shape}

{table}

- **requests**: those that ran at any moment of the fault, from its beginning until the replica was ready again and a second more.
- **failed**: did not get their whole answer, as the fault allows: streams that ran on the replica that was killed; under the
  policy `refuse`, requests that were answered 503 while Redis was away; over a limit, those that were answered 429.
- **lost**: any other request without its whole and right answer.
- **worst added latency**: the slowest of the answered requests, less what the median request of its kind takes in the same run
  while nothing is at fault. In the row *no fault* it is what {callers} callers do to each other on this machine.

Each answer is compared with what the model said, word by word; it names the chat replica that it comes from, and the proxy adds
which edge it came through. Chat replicas have a scripted model server behind them, whose answers take most of a second, so that
whatever dies has answers in the middle; embedding and content safety run the real models. Limits are counted in Redis throughout.
{passed_over}

## Memory

Resident memory of each process under the same load of {callers} callers, after the first {first} and after {last}.

{memory}
"""


@dataclasses.dataclass
class Row:
    fault: str
    requests: int
    failed: int
    lost: int
    worst: str
    bar: str
    met: bool

    def cells(self):
        values = (self.fault, self.requests, self.failed, self.lost, self.worst, self.bar, "yes" if self.met else "NO")
        return [str(value) for value in values]


@dataclasses.dataclass
class Fault:
    """A time in which something was wrong, and which failures it allows."""

    name: str
    began: float
    ended: float
    allows: object = staticmethod(lambda outcome: False)

    def touches(self, outcome):
        return outcome.ended >= self.began and outcome.began <= self.ended


def medians(outcomes, faults):
    """What a request of each kind takes while nothing is at fault."""
    times = {}
    for outcome in outcomes:
        if outcome.ok and not any(fault.touches(outcome) for fault in faults):
            times.setdefault((outcome.kind, outcome.deployment), []).append(outcome.took)
    return {key: statistics.median(values) for key, values in times.items()}


def added(outcome, calm):
    return outcome.took - calm.get((outcome.kind, outcome.deployment), 0.0)


def rows(outcomes, faults, bar):
    """A row for each name of a fault, in their order, and one for what ran beside them; and the requests that were lost."""
    calm = medians(outcomes, faults)
    names = list(dict.fromkeys(fault.name for fault in faults))
    table, lost = [], []
    for name in names:
        group = [fault for fault in faults if fault.name == name]
        within = [outcome for outcome in outcomes if any(fault.touches(outcome) for fault in group)]
        # A request may touch two faults, where these follow closely; either may allow its failure.
        allowed = lambda outcome: any(fault.allows(outcome) for fault in faults if fault.touches(outcome))  # noqa: E731
        table.append(row(name, within, calm, bar, allowed))
        lost += [outcome for outcome in within if not outcome.ok and not allowed(outcome)]
    beside = [outcome for outcome in outcomes if not any(fault.touches(outcome) for fault in faults)]
    table.append(row("no fault", beside, calm, "none lost", lambda outcome: False))
    lost += [outcome for outcome in beside if not outcome.ok]
    return table, lost


def row(name, outcomes, calm, bar, allowed):
    bad = [outcome for outcome in outcomes if not outcome.ok]
    failed = sum(allowed(outcome) for outcome in bad)
    worst = max((added(outcome, calm) for outcome in outcomes if outcome.ok), default=0.0)
    lost = len(bad) - failed
    return Row(name, len(outcomes), failed, lost, milliseconds(worst), bar, lost == 0)


def milliseconds(seconds):
    return f"{max(seconds, 0) * 1000:.0f} ms"


def text(cells):
    """Rows of cells, aligned."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def markdown(cells):
    lines = [" | ".join(row) for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]
    return "\n".join(f"| {line} |" for line in lines)


def table(rows):
    return [list(COLUMNS), *(row.cells() for row in rows)]


def machine():
    """The shape of this machine."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kib = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    return f"{os.cpu_count()} cores ({names[0] if names else 'unknown'}), {kib / 1024 / 1024:.0f} GiB of memory"
