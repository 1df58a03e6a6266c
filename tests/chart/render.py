#!/usr/bin/env python3
"""Renders the chart for each of its value files. Run as a program it writes the golden renders anew: look at the diff.

A golden render is the objects as data, in one order, so that it says what is installed whatever helm prints around it.
"""

import functools
import sys

import yaml
from tools import ROOT, run

CHART = ROOT / "helm/koine"
GOLDEN = CHART / "tests/golden"
CASES = {
    **{file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))},
    "dev": CHART / "values-dev.yaml",
    "ha": CHART / "values-ha.yaml",
    "tls": CHART / "values-tls.yaml",
}
NAMESPACE = "inference"


def template(*words, helm="helm4"):
    return run(helm, "template", "koine", CHART, "--namespace", NAMESPACE, *words)


@functools.cache
def objects(case, helm="helm4"):
    """What `case` installs, as data."""
    done = template("-f", CASES[case], helm=helm)
    assert done.returncode == 0, done.stderr
    found = [o for o in yaml.safe_load_all(done.stdout) if o]
    return sorted(found, key=lambda o: (o["kind"], o["metadata"]["name"]))


def golden(case, helm="helm4"):
    parts = []
    for thing in objects(case, helm):
        # The dashboards are files of this chart, compared elsewhere; the name says enough.
        if "-dashboard-" in thing["metadata"]["name"]:
            thing = thing | {"data": {name: "(the file)" for name in thing["data"]}}
        parts.append(yaml.safe_dump(thing, sort_keys=False, width=130, allow_unicode=True))
    return "---\n".join(parts)


def of_kind(case, *kinds):
    return [o for o in objects(case) if o["kind"] in kinds]


def pods(case):
    """Every pod template of `case` with the name of its owner."""
    for thing in objects(case):
        if thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"]
        elif "template" in thing.get("spec", {}):
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]


def containers(case):
    for name, spec in pods(case):
        for container in spec.get("initContainers", []) + spec["containers"]:
            yield f"{name}/{container['name']}", container


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (GOLDEN / f"{case}.yaml").write_text(golden(case))
        sys.stdout.write(f"{GOLDEN / case}.yaml\n")
