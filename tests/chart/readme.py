#!/usr/bin/env python3
"""Writes helm/koine/README.md out of the comments of values.yaml; a test compares.

A comment that begins with `# --` describes the value below it; further comment lines go on with it. A value without one is an
error here, so that none is forgotten.
"""

import json
import re
import sys

import yaml
from tools import ROOT

CHART = ROOT / "helm/koine"
HEAD = """# Koine on Kubernetes

The four services of [Koine](../../README.md), each scaled by itself. Made of `values.yaml` by `tests/chart/readme.py`.

```bash
kubectl create secret generic koine-keys --from-literal=keys="$(openssl rand -hex 32)"
helm install koine helm/koine --set edge.auth.existingSecret=koine-keys --set image.repository=registry.example.com/koine
helm test koine --logs
```

The images are those of `make images`, in your registry. Needs Kubernetes 1.30 or newer and helm 3 or 4. Pods run as nobody, with
a root file system that is read-only, without capabilities and without a token; only the edge can be reached from outside the
release. Secrets are named, never made.

| file | for |
| --- | --- |
| `values-dev.yaml` | one small pod of each, on a laptop's cluster |
| `values-ha.yaml` | several of each over zones, scaled by what waits, with alerts and dashboards |
| `values-tls.yaml` | HTTPS for callers, mutual TLS and a token within |
| `ci/*-values.yaml` | certificates by cert-manager; KEDA and the Gateway API; GPUs with weights in the images; an edge whose chat is elsewhere; variables, names and servers of your own |

What scales a service, beside its processors: requests in flight (`edge_in_flight_requests`), sequences that wait for a place
in the batch (`chat_waiting_sequences`), tokens that wait for ONNX Runtime (`onnx_queue_tokens`). With `hpa` they need a metrics
adapter (`deploy/kubernetes/prometheus-adapter.yaml`), with `keda` only Prometheus and the ServiceMonitors.

How weights arrive: `models.source` is `pull` (an init container fetches them, checks their sha256 and fills the volume),
`volume` (they are there), or `image` (they are in images built on top of ours: see `docs/release.md`).

| value | default | meaning |
| --- | --- | --- |
"""
KEY = re.compile(r"^( *)([A-Za-z]+):(.*)$")
ABOUT = re.compile(r"^ *# -- ?(.*)$")
MORE = re.compile(r"^ *# (.*)$")


def described(text):
    """Each value's path with what the comment above it says; None where there is none."""
    path, about = [], None
    for line in text.splitlines():
        if match := ABOUT.match(line):
            about = match[1]
        elif (match := MORE.match(line)) and about is not None:
            about += " " + match[1]
        elif match := KEY.match(line):
            depth = len(match[1]) // 2
            if depth > len(path):
                continue  # inside a value that was described as a whole
            path[depth:] = [match[2]]
            value = match[3].strip()
            if about is not None:
                yield ".".join(path), about
                path.pop()  # what is below belongs to it
            elif value:
                yield ".".join(path), None
            about = None


def lookup(values, path):
    for key in path.split("."):
        values = values[key]
    return values


def render():
    text = (CHART / "values.yaml").read_text()
    values, rows = yaml.safe_load(text), []
    for path, about in described(text):
        if not about:
            sys.exit(f"values.yaml: `{path}` has no comment that begins with `# --`")
        default = json.dumps(lookup(values, path), ensure_ascii=False)
        rows.append(f"| `{path}` | `{default}` | {about.replace('|', chr(92) + '|')} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (CHART / "README.md").write_text(render())
