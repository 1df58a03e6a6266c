"""The faults, each a function that takes a running stack and says what came of it.

All of them keep the callers at work while they do harm, and note when the harm began and ended.
"""

import asyncio
import dataclasses
import signal
import statistics
import time

import callers
import report
import wire
from report import Fault, Row, milliseconds
from stack import COUNTED, NARROW, REDIS_TIMEOUT_MS, REPLICAS, SERVICES, STOPPED_WITHIN_S

# What 50 callers ask: mostly conversations, which run for most of a second each.
MIX = [("chat", "steady")] * 7 + [("stream", "steady")] * 7 + [("embedding", ""), ("safety", "")] * 3
# The same without content safety, for faults whose times are looked at: what verdicts take would hide them.
PLAIN = [("chat", "plain"), ("stream", "plain")]
# After what is no conversation, which would else be all that these callers do.
PAUSE_S = 1.0
# Time before the first fault and between two, for the medians.
CALM_S = 5.0
# How long a replica is gone.
GONE_S = 3.0
# After a fault, what it does may still be seen.
AFTER_S = 1.0


@dataclasses.dataclass
class Result:
    """Rows of the table, and lines about what went wrong."""

    rows: list
    problems: list
    memory: list = dataclasses.field(default_factory=list)


def judged(outcomes, faults, bar, problems=()):
    table, lost = report.rows(outcomes, faults, bar)
    told = [f"{o.kind} by {o.edge or 'no edge'}, {o.replica or 'no replica'}: {o.why}" for o in lost]
    return Result(table, [*problems, *told])


async def kill(stack, options):
    """SIGKILL of one replica after the other, a service at a time, each started again after a while."""
    load = callers.Load(stack.proxy_port)
    load.start(options.callers, MIX, PAUSE_S)
    order = [f"{service}-{number}" for number in (1, 2) for service in SERVICES]
    faults = []
    until = time.monotonic() + options.kill_seconds
    while time.monotonic() < until or len(faults) < len(SERVICES):
        await asyncio.sleep(CALM_S)
        victim = order[len(faults) % len(order)]
        faults.append(await kill_one(stack, victim))
    await asyncio.sleep(CALM_S)
    outcomes = await load.stop()
    return judged(outcomes, faults, "only streams of that replica fail")


async def kill_one(stack, victim):
    service = stack.services[victim]
    began = time.monotonic()
    service.signal(signal.SIGKILL)
    await service.ended(STOPPED_WITHIN_S)
    await asyncio.sleep(GONE_S)
    await stack.restart(victim)
    await asyncio.sleep(AFTER_S)
    kind = victim.rpartition("-")[0]

    def allows(outcome):
        served = victim in (outcome.replica, outcome.edge)
        return outcome.kind == "stream" and served and outcome.began <= began <= outcome.ended

    return Fault(f"SIGKILL of {kind}", began, time.monotonic(), allows)


async def roll(stack, options):
    """SIGTERM to every replica in turn, each started again before the next."""
    load = callers.Load(stack.proxy_port)
    load.start(options.callers, MIX, PAUSE_S)
    await asyncio.sleep(CALM_S)
    faults, problems = [], []
    for _ in range(options.rolls):
        for name in REPLICAS:
            began = time.monotonic()
            stack.services[name].signal(signal.SIGTERM)
            code = await stack.services[name].ended(STOPPED_WITHIN_S)
            if code != 0:
                problems.append(f"{name} ended with {code} after SIGTERM")
            await stack.restart(name)
            await asyncio.sleep(AFTER_S)
            service = name.rpartition("-")[0]
            faults.append(Fault(f"rolling restart of {service}", began, time.monotonic()))
        await asyncio.sleep(CALM_S)
    return judged(await load.stop(), faults, "none lost", problems)


async def redis(stack, options):
    """Redis stopped and started, and frozen and thawed, under each policy."""
    result = Result([], [])
    for policy in ("local", "refuse", "allow"):
        for name in ("edge-1", "edge-2"):
            stack.services[name].signal(signal.SIGTERM)
            await stack.services[name].ended(STOPPED_WITHIN_S)
            await stack.restart(name, EDGE__RATES__WHEN_UNAVAILABLE=policy)
        load = callers.Load(stack.proxy_port)
        load.start(options.callers, PLAIN)
        faults = []
        for _ in range(options.redis_rounds):
            for harm, remedy, name in (
                (stop_redis, stack.start_redis, f"Redis stopped, `{policy}`"),
                (freeze_redis, lambda: stack.redis.signal(signal.SIGCONT), f"Redis silent, `{policy}`"),
            ):
                await asyncio.sleep(CALM_S)
                began = time.monotonic()
                await harm(stack)
                await asyncio.sleep(GONE_S)
                remedy()
                await asyncio.sleep(AFTER_S)
                faults.append(Fault(name, began, time.monotonic(), refused if policy == "refuse" else nothing))
        await asyncio.sleep(CALM_S)
        outcomes = await load.stop()
        part = judged(outcomes, faults, "none lost, its timeout added once at most")
        once_at_most(part, outcomes, faults)
        result.rows += part.rows[:-1]
        result.problems += part.problems
    return result


async def stop_redis(stack):
    stack.redis.signal(signal.SIGTERM)
    await stack.redis.ended(STOPPED_WITHIN_S)


async def freeze_redis(stack):
    stack.redis.signal(signal.SIGSTOP)


def refused(outcome):
    return outcome.status == 503 and "limits cannot be checked" in outcome.why


def nothing(_outcome):
    return False


def once_at_most(part, outcomes, faults):
    """Holds the rows to the second half of their bar: no request waits longer than the timeout of Redis, beside what the callers
    do to each other anyway, and no caller waits for it twice."""
    calm = report.medians(outcomes, faults)
    beside = [o for o in outcomes if o.ok and not any(fault.touches(o) for fault in faults)]
    noise = max((report.added(o, calm) for o in beside), default=0.0)
    timeout = REDIS_TIMEOUT_MS / 1000
    for row in part.rows:
        for fault in (fault for fault in faults if fault.name == row.fault):
            within = [(o.caller, report.added(o, calm)) for o in outcomes if fault.touches(o)]
            if max(late for _, late in within) > timeout + noise:
                row.met = False
                part.problems.append(f"{fault.name}: more than the timeout and {milliseconds(noise)} of noise was added")
            waited = [caller for caller, late in within if late > timeout * 0.8 + noise]
            if len(waited) > len(set(waited)):
                row.met = False
                part.problems.append(f"{fault.name}: a caller waited for the timeout twice")


async def slow(stack, options):
    """A slow upstream beside another deployment: the times of the other one with and without it, in turns."""
    alone, beside, slowed = [], [], []
    for _ in range(options.slow_rounds):
        for load_of_slow, times in ((0, alone), (options.callers * 3 // 5, beside)):
            crowd = callers.Load(stack.proxy_port)
            crowd.start(load_of_slow, [("chat", "slow"), ("stream", "slow")])
            # Until they all wait.
            await asyncio.sleep(CALM_S / 2)
            load = callers.Load(stack.proxy_port)
            load.start(options.callers * 2 // 5, PLAIN)
            await asyncio.sleep(options.slow_seconds)
            times += await load.stop()
            slowed += await crowd.stop()
    took = [statistics.median(o.took for o in outcomes if o.ok) for outcomes in (alone, beside)]
    more = took[1] / took[0] - 1
    everything = alone + beside + slowed
    lost = [f"{o.kind} of {o.deployment}: {o.why}" for o in everything if not o.ok]
    calm = {(o.kind, o.deployment): took[0] for o in beside}
    worst = max(report.added(o, calm) for o in beside if o.ok)
    met = more <= 0.10 and not lost
    bar = f"others at most 10 % slower: {more * 100:+.1f} % at p50 ({took[0] * 1000:.0f} → {took[1] * 1000:.0f} ms)"
    row = Row("slow upstream, others", len(beside), 0, len(lost), milliseconds(worst), bar, met)
    return Result([row], lost)


async def limits(stack, options):
    """Two edges and one Redis admit exactly what is configured."""
    load = callers.Load(stack.proxy_port)
    asked = COUNTED * 2

    async def some(caller, deployment, count):
        for number in range(count):
            await load.once(caller, "stream" if number % 3 == 0 else "chat", deployment)

    await asyncio.gather(*(some(caller, "counted", asked // options.callers) for caller in range(options.callers)))
    counted = limit_row(load.outcomes, f"{COUNTED} requests a day, asked of both edges", lambda ok: ok == COUNTED)
    load = callers.Load(stack.proxy_port)
    await asyncio.gather(*(some(caller, "narrow", options.narrow_rounds) for caller in range(options.callers)))
    _, most = await wire.ask(stack.upstream_port, wire.request("GET", "/most"), 5)
    most = callers.json.loads(most)["narrow"]
    narrow = limit_row(load.outcomes, f"{NARROW} requests at the same time", lambda ok: most == NARROW)
    narrow[0].bar = f"at most {NARROW} at the upstream: {most}"
    return Result([counted[0], narrow[0]], counted[1] + narrow[1])


def limit_row(outcomes, name, exact):
    ok = sum(o.ok for o in outcomes)
    over = sum(o.status == 429 for o in outcomes)
    lost = [f"{name}: {o.why}" for o in outcomes if not o.ok and o.status != 429]
    met = exact(ok) and not lost
    return Row(name, len(outcomes), over, len(lost), "-", f"exactly so many admitted: {ok}", met), lost


async def soak(stack, options):
    """Memory of every process after a long time under load, against that after the first minute."""
    load = callers.Load(stack.proxy_port)
    load.start(options.callers, MIX, PAUSE_S)
    began = time.monotonic()
    await asyncio.sleep(options.soak_first)
    first = await resident(stack)
    await asyncio.sleep(max(options.soak_seconds - (time.monotonic() - began), 0))
    last = await resident(stack)
    outcomes = await load.stop()
    result = judged(outcomes, [], "")
    row = result.rows[0]
    growth = {name: last[name] / first[name] - 1 for name in first}
    worst = max(growth, key=growth.get)
    row.fault = f"none for {options.soak_seconds / 60:.0f} minutes"
    row.bar = f"memory at most 5 % more: {growth[worst] * 100:+.1f} % ({worst})"
    row.met = row.met and growth[worst] <= 0.05
    result.memory = [["process", f"after {options.soak_first:.0f} s", "at the end", "growth"]] + [
        [name, f"{first[name] / 1024:.1f} MiB", f"{last[name] / 1024:.1f} MiB", f"{growth[name] * 100:+.1f} %"]
        for name in first
    ]
    return result


async def resident(stack):
    """The median of a few looks at each process, in KiB."""
    looks = []
    for _ in range(5):
        looks.append({name: service.resident_kib() for name, service in stack.services.items()})
        await asyncio.sleep(1)
    return {name: statistics.median(look[name] for look in looks) for name in stack.services}
