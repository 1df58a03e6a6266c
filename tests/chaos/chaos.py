"""`make chaos`: starts two replicas of each service, does them harm under load, and holds what comes of it against the bars.

Needs the release binaries, the default models and Debian's redis-server, and nothing of Python but its standard library. Ends with
1 where a bar is missed. Everything is bounded: requests, starts, stops, and the whole.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

import faults
import report
import wire
from stack import ROOT, Stack

SCENARIOS = {
    "kill": faults.kill,
    "roll": faults.roll,
    "redis": faults.redis,
    "slow": faults.slow,
    "limits": faults.limits,
    "soak": faults.soak,
}
PAGE = ROOT / "docs/chaos.md"
# Far beyond what all of it takes with the longest times that make sense.
ALL_WITHIN_S = 3600
# Lines about lost requests that are shown of one scenario.
MOST_PROBLEMS = 20


def options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--callers", type=int, default=50, help="at the same time (50)")
    parser.add_argument("--kill-seconds", type=float, default=300, help="of the load under SIGKILL (300)")
    parser.add_argument("--rolls", type=int, default=2, help="rolling restarts of everything (2)")
    parser.add_argument("--redis-rounds", type=int, default=2, help="of each harm to Redis under each policy (2)")
    parser.add_argument("--slow-rounds", type=int, default=4, help="with and without a slow upstream (4)")
    parser.add_argument("--slow-seconds", type=float, default=8, help="of each of them (8)")
    parser.add_argument("--narrow-rounds", type=int, default=10, help="requests of each caller for few slots (10)")
    parser.add_argument("--soak-seconds", type=float, default=600, help="of the load for memory (600)")
    parser.add_argument("--soak-first", type=float, default=60, help="when memory is looked at first (60)")
    parser.add_argument("--only", default="", help=f"some of {','.join(SCENARIOS)}")
    parser.add_argument("--short", action="store_true", help="a few minutes for all, to try it")
    parser.add_argument("--page", type=Path, help="where to write the page; docs/chaos.md for a full run, else nowhere")
    chosen = parser.parse_args()
    chosen.names = [name for name in chosen.only.split(",") if name] or list(SCENARIOS)
    unknown = [name for name in chosen.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; known are {', '.join(SCENARIOS)}")
    if chosen.short:
        short = {"kill_seconds": 40, "rolls": 1, "redis_rounds": 1, "slow_rounds": 2, "soak_seconds": 40, "soak_first": 15}
        vars(chosen).update(short)
    elif not chosen.only and chosen.page is None:
        chosen.page = PAGE
    return chosen


async def run(chosen, logs):
    """All rows, all problems, the memory table, and what the proxy passed over."""
    rows, problems, memory = [], [], []
    stack = Stack(logs)
    try:
        await stack.start()
        for name in chosen.names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            result = await SCENARIOS[name](stack, chosen)
            print(report.text(report.table(result.rows)), flush=True)
            for problem in result.problems[:MOST_PROBLEMS]:
                print(f"  {problem}", flush=True)
            if len(result.problems) > MOST_PROBLEMS:
                print(f"  and {len(result.problems) - MOST_PROBLEMS} more", flush=True)
            rows += result.rows
            problems += result.problems
            memory = memory or result.memory
        _, passed_over = await wire.ask(stack.proxy_port, wire.request("GET", "/passed-over"), 5)
        return rows, problems, memory, faults.callers.json.loads(passed_over)
    finally:
        await stack.stop()


def told(passed_over):
    reasons = {}
    for name, count in passed_over.items():
        reason = name.partition(": ")[2]
        reasons[reason] = reasons.get(reason, 0) + count
    listed = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    return f"Requests that the proxy sent to the other edge, by what the first one did: {listed or 'none'}."


def page(chosen, rows, memory, passed_over):
    shape = (
        f"Command: `make chaos`. Machine: {report.machine()},\nwhich also ran the callers, the proxy and the model server.\n"
        f"Two replicas of each service, {chosen.callers} callers at the same time; SIGKILL for "
        f"{chosen.kill_seconds / 60:.0f} minutes, {chosen.rolls} rolling restarts of everything."
    )
    return report.PAGE.format(
        shape=shape,
        callers=chosen.callers,
        table=report.markdown(report.table(rows)),
        passed_over=told(passed_over),
        first=f"{chosen.soak_first:.0f} seconds",
        last=f"{chosen.soak_seconds / 60:.0f} minutes",
        memory=report.markdown(memory) if memory else "Not looked at.",
    )


async def main(chosen, logs):
    running = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Once: the stack is stopped then; whoever asks twice does not want to wait.
        loop.add_signal_handler(number, lambda: (running.cancel(), loop.remove_signal_handler(signal.SIGINT)))
    began = time.monotonic()
    rows, problems, memory, passed_over = await asyncio.wait_for(run(chosen, logs), ALL_WITHIN_S)
    print(f"\n{report.text(report.table(rows))}")
    if memory:
        print(f"\n{report.text(memory)}")
    print(f"\n{told(passed_over)}\n{report.machine()}, {time.monotonic() - began:.0f} s")
    if chosen.page:
        chosen.page.write_text(page(chosen, rows, memory, passed_over))
    return all(row.met for row in rows) and not problems


if __name__ == "__main__":
    arguments = options()
    folder = Path(tempfile.mkdtemp(prefix="koine-chaos-logs-"))
    try:
        met = asyncio.run(main(arguments, folder))
    except asyncio.CancelledError:
        sys.exit(f"interrupted; the logs are in {folder}")
    print("every bar is met" if met else f"a bar is missed; the logs are in {folder}", file=sys.stderr)
    if met:
        for log in folder.iterdir():
            log.unlink()
        folder.rmdir()
    sys.exit(0 if met else 1)
