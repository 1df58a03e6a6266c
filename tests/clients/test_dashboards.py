"""Every query of the dashboards, alerts and scalers names metrics and labels that exist: a running stack is asked for them.

The stack gets traffic that makes each of its metrics appear, failures included; Prometheus itself is not needed, since its
query language is parsed here.
"""

import base64
import json
import re
import urllib.error
import urllib.request

import promql_parser
import pytest
import yaml
from conftest import ROOT, SERVICES, start_services

VERSION = "api-version=2024-05-01-preview"
FILES = ROOT / "helm/koine/files"
# What Prometheus adds to a series when it reads it: here, in deploy/prometheus, and with the operator's ServiceMonitors.
ADDED = {"job", "instance", "le", "namespace", "service", "pod"}
# Prometheus's own: whether reading a target succeeded.
OWN = {"up": set()}
# Shown only by what this test does not bring about, such as a cache that overflows: looked for in the source, with their labels.
RARE = {
    "chat_step_backs_total": set(),
    "client_retries_total": {"callee"},
    "edge_cache_answers_total": {"what", "source"},
    "edge_fallbacks_total": {"deployment", "fallback"},
    "edge_repeated_answers_total": set(),
    "edge_limited_requests_total": {"deployment", "limit"},
    "edge_limits_unavailable_total": {"instead"},
    "edge_queued_requests": {"deployment"},
    "edge_queue_seconds_bucket": {"deployment"},
}
NOBODY = "http://127.0.0.1:9/v1"
REMOTES = {
    "CHAT__REMOTE": f'[{{ name = "absent-chat", base_urls = ["{NOBODY}"], connection = {{ retries = 0 }} }}]',
    "EMBEDDING__REMOTE": f'[{{ name = "absent-vectors", base_urls = ["{NOBODY}"], dimensions = 8, connection = {{ retries = 0 }} }}]',
}


def post(koine, path, body, key=None):
    headers = {"content-type": "application/json", "api-key": key or koine.key}
    request = urllib.request.Request(f"{koine.endpoint}{path}?{VERSION}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def chat(koine, text, key=None, **more):
    return post(koine, "/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}, key)


def violent_prompt():
    lines = (ROOT / "crates/content-safety/training/authored/smoke.tsv").read_text().splitlines()
    return next(line.split("\t")[2] for line in lines if line.startswith("block\tviolence\t"))


def give_traffic(koine):
    assert chat(koine, "Name a fruit.") == 200
    assert chat(koine, "Name a fruit.", stream=True) == 200
    assert chat(koine, violent_prompt()) == 400
    assert chat(koine, "Hello.", key="wrong") == 401
    assert chat(koine, "Hello.", model="absent-chat") >= 500
    assert post(koine, "/embeddings", {"input": ["a text"]}) == 200
    assert post(koine, "/embeddings", {"input": ["a text"], "model": "absent-vectors"}) >= 500
    cat = base64.b64encode((ROOT / "tests/clients/data/cat.jpg").read_bytes()).decode()
    assert post(koine, "/images/embeddings", {"input": [{"image": f"data:image/jpeg;base64,{cat}"}]}) == 200


def scraped(koine):
    """Each series of the admin ports: its name, and the labels that it has anywhere."""
    found = {}
    for service in SERVICES:
        env = koine.processes[service].koine_env
        address = env[f"{service.upper().replace('-', '_')}__SERVICE__ADMIN_LISTEN"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


@pytest.fixture(scope="module")
def series():
    koine = start_services(**REMOTES)
    try:
        give_traffic(koine)
        return scraped(koine)
    finally:
        koine.stop()


def filled(query):
    """A query of Grafana with its variables at what they begin with."""
    for variable, value in {"$__rate_interval": "5m", "$instance": ".*", "$namespace": ".*"}.items():
        query = query.replace(variable, value)
    return query


def dashboard_queries():
    for file in sorted((FILES / "dashboards").glob("*.json")):
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{file.stem}: {panel['title']} {target['refId']}", filled(target["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((\w+(?:\{.*\})?), (\w+)\)", variable["query"]["query"]).groups()
                yield f"{file.stem}: ${variable['name']}", filled(f"sum by ({label}) ({series})")


def alert_queries():
    for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def scaler_queries():
    """What the scalers of the golden renders ask Prometheus or a metrics adapter for."""
    for file in sorted((ROOT / "helm/koine/tests/golden").glob("*.yaml")):
        for thing in yaml.safe_load_all(file.read_text()):
            name = f"{file.stem}: {thing['kind']} {thing['metadata']['name']}"
            if thing["kind"] == "ScaledObject":
                for trigger in thing["spec"]["triggers"]:
                    if trigger["type"] == "prometheus":
                        yield name, trigger["metadata"]["query"]
            if thing["kind"] == "HorizontalPodAutoscaler":
                for metric in thing["spec"]["metrics"]:
                    if metric["type"] == "Pods":
                        yield name, metric["pods"]["metric"]["name"]
    adapter = yaml.safe_load((ROOT / "deploy/kubernetes/prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        for metric in re.search(r"\^\((.*?)\)\$", rule["seriesQuery"])[1].split("|"):
            yield "prometheus-adapter", metric


QUERIES = [*dashboard_queries(), *alert_queries(), *scaler_queries()]


def parts(node):
    """A query's nodes, itself first."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, (str, int, float)):
            yield from parts(below)
    for below in getattr(node, "args", []) or []:
        yield from parts(below)


def selectors(query):
    """Each metric of a query with its matchers, and the labels that the query groups by."""
    nodes = list(parts(promql_parser.parse(query)))
    grouped = set()
    for node in nodes:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            grouped |= set(node.modifier.labels)
    return [(n.name, n.matchers.matchers) for n in nodes if isinstance(n, promql_parser.VectorSelector)], grouped


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_names_metrics_and_labels_that_exist(series, where, query):
    known = OWN | RARE | series
    named, grouped = selectors(query)
    assert named, query
    for metric, matchers in named:
        assert metric in known, f"{where}: nobody has `{metric}`"
        for matcher in matchers:
            assert matcher.name in ADDED | known[metric], f"{where}: `{metric}` has no label `{matcher.name}`"
    labels = set().union(*(known[metric] for metric, _ in named))
    assert grouped <= ADDED | labels, where


def documented():
    """Each metric of the table in docs/metrics.md: its kind and its labels."""
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| ", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE):
        yield name, kind, set(re.findall(r"`(\w+)`", labels))


def test_the_table_of_metrics_is_what_a_running_stack_shows(series):
    table = {name: labels for name, _, labels in documented()}
    kinds = {name: kind for name, kind, _ in documented()}
    shown = {}
    for name, labels in (RARE | series).items():
        metric = re.sub(r"_(bucket|sum|count)$", "", name)
        shown.setdefault(metric if kinds.get(metric) == "histogram" else name, set()).update(labels - {"le"})
    assert shown.keys() - table.keys() == set(), "not in the table"
    assert table.keys() - shown.keys() == set(), "nobody has it"
    assert shown == table


def source():
    return "\n".join(file.read_text() for file in ROOT.glob("crates/*/src/**/*.rs"))


def words_of_the_source():
    return set(re.findall(r'"([\w-]+)"', source()))


def test_every_metric_of_the_source_is_in_the_table_by_its_kind():
    table = {name: kind for name, kind, _ in documented()}
    measured = set(re.findall(r'metrics::(counter|gauge|histogram)!\(\s*"(\w+)"', source()))
    assert len(measured) > 40
    for kind, name in measured:
        assert table.get(name) == kind, name


def test_the_values_that_queries_look_for_are_words_of_the_source():
    words = words_of_the_source()
    assert {name.removesuffix("_bucket") for name in RARE} <= words
    for where, query in QUERIES:
        for metric, matchers in selectors(query)[0]:
            for matcher in matchers:
                if matcher.name in ADDED or matcher.name == "status":
                    continue
                # An empty value is the absence of the label.
                for value in filter(None, matcher.value.split("|")):
                    assert value in words, f"{where}: no {matcher.name} of `{metric}` is `{value}`"
