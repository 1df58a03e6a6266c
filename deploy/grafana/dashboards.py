#!/usr/bin/env python3
"""Writes the Grafana dashboards into helm/koine/files/dashboards, which is their one home: the chart installs them from
there, and docker-compose.yml mounts them from there. Run it after a change here; a test compares.

A panel is a title, what to think of it, a unit, and its queries; everything else of Grafana's JSON is the same for all.
"""

import json
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2] / "helm/koine/files/dashboards"
# Nothing of the workspace is named in a query but metrics; `$namespace` picks installations, and is no label without Kubernetes;
# `$instance` picks pods of the service that the dashboard is about.
N = 'namespace=~"$namespace"'
I = f'{N}, instance=~"$instance"'


def rate(metric, by=None, only="", pods=I):
    matchers = pods + (f", {only}" if only else "")
    summed = f"sum by ({by}) " if by else "sum"
    return f"{summed}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def rare(metric, by=None, only="", pods=I):
    """The rate of what a healthy installation never counts: 0 then, and not that there is no data."""
    zero = f'label_replace(vector(0), "{by.split(", ")[0]}", "none", "", "")' if by else "vector(0)"
    return f"({rate(metric, by, only, pods)} or {zero})"


def quantiles(metric, by=None, only=""):
    """p50, p95 and p99 of a histogram; with `by`, p95 for each value of that label."""
    wanted = ((0.95, f"p95 {{{{{by}}}}}"),) if by else ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    labels = f"le, {by}" if by else "le"
    return [(f"histogram_quantile({q}, {rate(metric + '_bucket', labels, only)})", name) for q, name in wanted]


def panel(title, about, unit, *queries, kind="timeseries", width=8, stack=False):
    return {"title": title, "about": about, "unit": unit, "queries": queries, "kind": kind, "width": width, "stack": stack}


def part(only):
    """Part of the requests."""
    return f'{rare("edge_requests_total", only=only)} / {rate("edge_requests_total")}'


ERRORS, BROKEN, LEFT = part('status=~"5.."'), part('outcome="broken"'), part('outcome="abandoned"')

OVERVIEW = ("Koine: overview", "edge_requests_total", {
    "What clients see": [
        panel("Processes up", "Below the number that should run: a process is away or its admin port is.", "short",
              (f'sum by (job) (up{{job=~"koine-.*", {N}}})', "{{job}}"), kind="stat", width=6),
        panel("Requests", "All routes.", "reqps", (rate("edge_requests_total"), "requests"), kind="stat", width=6),
        panel("Errors of ours", "Part of the requests answered with 5xx.", "percentunit", (ERRORS, "5xx"), kind="stat", width=6),
        panel("Broken streams", "Part of the requests that failed after the first byte.", "percentunit",
              (BROKEN, "broken"), kind="stat", width=6),
        panel("Requests by route", "", "reqps", (rate("edge_requests_total", "route"), "{{route}}"), stack=True),
        panel("Answers by status", "0 is a client that left before the answer.", "reqps",
              (rate("edge_requests_total", "status"), "{{status}}"), stack=True),
        panel("Whole request", "To the last byte, 95 in 100 are faster.", "s", *quantiles("edge_request_seconds", "route")),
    ],
    "What they wait for": [
        panel("First token", "From the request to the first piece of a streamed answer.", "s", *quantiles("edge_first_token_seconds")),
        panel("Judging", "What content safety takes; it runs beside generation.", "s", *quantiles("edge_screening_seconds", "what")),
        panel("Tokens", "Read and written, all deployments.", "short", (rate("edge_tokens_total", "kind"), "{{kind}}")),
    ],
    "What scales": [
        panel("Requests in flight at the edge", "The edge's signal for autoscaling.", "short",
              (f"sum by (instance) (edge_in_flight_requests{{{I}}})", "{{instance}}")),
        panel("Sequences that wait for the engine", "Chat's signal. Above zero for long: more replicas, or fewer requests.", "short",
              (f"sum by (instance) (chat_waiting_sequences{{{N}}})", "{{instance}}")),
        panel("Tokens that wait for ONNX Runtime", "The signal of embedding and content safety.", "short",
              (f"sum by (job, model) (onnx_queue_tokens{{{N}}})", "{{job}} {{model}}")),
    ],
    "What no request shows": [
        panel("Configurations refused", "Changed files that were wrong: the ones before hold.", "ops",
              (rare("config_reloads_total", "job", 'outcome="refused"', N), "{{job}}")),
        panel("Turned away at the doors", "Calls of a model service without its token.", "ops",
              (rare("door_refusals_total", "job", pods=N), "{{job}}")),
        panel("Spans lost", "By why they did not leave: the collector, or a queue that was full.", "ops",
              (rare("telemetry_spans_lost_total", "job, why", pods=N), "{{job}} {{why}}")),
    ],
})

EDGE = ("Koine: edge", "edge_requests_total", {
    "Requests": [
        panel("By deployment", "Empty: no deployment was found for it.", "reqps",
              (rate("edge_requests_total", "deployment"), "{{deployment}}"), stack=True),
        panel("By status", "401 no key, 422 what a model cannot do, 429 a limit, 503 busy or a service away, 504 too slow.", "reqps",
              (rate("edge_requests_total", "status"), "{{status}}"), stack=True),
        panel("How they ended", "abandoned: the client left. broken: an error after the first byte.", "reqps",
              (rate("edge_requests_total", "outcome"), "{{outcome}}"), stack=True),
    ],
    "Time": [
        panel("Whole request", "All routes together.", "s", *quantiles("edge_request_seconds")),
        panel("Whole request by route", "95 in 100 are faster.", "s", *quantiles("edge_request_seconds", "route")),
        panel("First token by deployment", "95 in 100 are faster.", "s", *quantiles("edge_first_token_seconds", "deployment")),
    ],
    "Load": [
        panel("In flight", "Requests that have come and not ended.", "short",
              (f"edge_in_flight_requests{{{I}}}", "{{instance}}")),
        panel("Tokens in flight", "What these requests are taken to cost, by deployment.", "short",
              (f"sum by (deployment) (edge_in_flight_tokens{{{I}}})", "{{deployment}}")),
        panel("Clients that left", "Part of the requests whose caller did not wait for the end.", "percentunit",
              (LEFT, "left")),
        panel("Tokens by deployment", "Read and written.", "short",
              (rate("edge_tokens_total", "deployment, kind"), "{{deployment}} {{kind}}")),
        panel("Mean prompt and answer", "Tokens of one request.", "short",
              (f'{rate("edge_tokens_total", "kind")} / ignoring(kind) group_left {rate("edge_request_seconds_count")}', "{{kind}}")),
    ],
    "Calls of models": [
        panel("Time by model", "As the edge sees it: with the queue and the network. 95 in 100 are faster.", "s",
              *quantiles("gen_ai_client_operation_duration_seconds", "gen_ai_request_model")),
        panel("How calls fail", "By the error; cancelled is a client that left, or a prompt that was blocked meanwhile.", "ops",
              (rare("gen_ai_client_operation_duration_seconds_count", "error_type", 'error_type!=""'), "{{error_type}}"), stack=True),
        panel("Tokens of a call", "Median, read and written.", "short",
              (f'histogram_quantile(0.5, {rate("gen_ai_client_token_usage_bucket", "le, gen_ai_token_type")})', "{{gen_ai_token_type}}")),
    ],
    "Calls to the services": [
        panel("Replicas known", "Of all services together, as each edge's name service says.", "short",
              (f"sum by (instance) (client_replicas{{{I}}})", "{{instance}}"), width=12),
        panel("Calls made again", "At another replica, because the first failed before anything of its answer was handed on.", "ops",
              (rare("client_retries_total", "instance"), "{{instance}}"), width=12),
    ],
    "Who is let in": [
        panel("Turned away", "At the door: unknown or expired credentials, or valid ones that may not do this.", "reqps",
              (rare("edge_turned_away_total", "why"), "{{why}}"), stack=True, width=6),
        panel("Over a limit", "Answered 429, by the limit that was reached.", "reqps",
              (rare("edge_limited_requests_total", "deployment, limit"), "{{deployment}} {{limit}}"), stack=True, width=6),
        panel("Waiting for a slot", "Requests of deployments whose `concurrent` is taken.", "short",
              (f'sum by (deployment) (edge_queued_requests{{{I}}}) or label_replace(vector(0), "deployment", "none", "", "")', "{{deployment}}"),
              width=6),
        panel("Time of that wait", "95 in 100 are shorter.", "s", *quantiles("edge_queue_seconds", "deployment"), width=6),
        panel("Limits not counted", "Redis did not answer; what was done instead.", "reqps",
              (rare("edge_limits_unavailable_total", "instead"), "{{instead}}"), width=24),
    ],
    "Content safety around requests": [
        panel("Verdicts", "unavailable: the service did not answer in time.", "ops",
              (rate("edge_screened_texts_total", "what, verdict"), "{{what}} {{verdict}}"), stack=True, width=12),
        panel("Time of a judgement", "95 in 100 are faster.", "s", *quantiles("edge_screening_seconds", "what"), width=12),
    ],
})

CHAT = ("Koine: chat", "chat_requests_total", {
    "Requests": [
        panel("By outcome", "stop and length are whole answers; cancelled is a client that left; the rest are errors by name.", "reqps",
              (rate("chat_requests_total", "outcome"), "{{outcome}}"), stack=True),
        panel("First token", "Waiting, reading the prompt, one step.", "s", *quantiles("gen_ai_server_time_to_first_token_seconds")),
        panel("Time per token", "Of whole answers, after their first token: how fast a reader sees it grow.", "s",
              *quantiles("gen_ai_server_time_per_output_token_seconds")),
        panel("Whole answer", "", "s", *quantiles("gen_ai_server_request_duration_seconds")),
        panel("Whole answer by model", "95 in 100 are faster.", "s",
              *quantiles("gen_ai_server_request_duration_seconds", "gen_ai_request_model", 'job="koine-chat"')),
        panel("In flight", "Requests that have come and not ended, of servers upstream too.", "short",
              (f"sum by (model) (chat_in_flight_requests{{{I}}})", "{{model}}")),
    ],
    "Engine": [
        panel("Sequences", "Running fill the batch; waiting means it is full.", "short",
              (f"sum(chat_active_sequences{{{I}}})", "running"), (f"sum(chat_waiting_sequences{{{I}}})", "waiting")),
        panel("Tokens in flight", "Prompts and answers so far of all sequences that run or wait.", "short",
              (f"sum by (model) (chat_in_flight_tokens{{{I}}})", "{{model}}")),
        panel("One decoding step", "Its time is the time per output token of every sequence in the batch.", "s",
              *quantiles("chat_decode_step_seconds")),
        panel("Sequences in a step", "How full the batch is; near 1 there is room.", "short",
              (f'{rate("chat_decoded_sequences_total")} / {rate("chat_decode_step_seconds_count")}', "mean")),
    ],
    "Tokens": [
        panel("Tokens", "Prompt, of it found in the cache, and written.", "short",
              (rate("chat_prompt_tokens_total"), "prompt"), (rate("chat_cached_tokens_total"), "cached"),
              (rate("chat_completion_tokens_total"), "written")),
        panel("Found in the cache", "Part of the prompt tokens that need not be read again.", "percentunit",
              (f'{rate("chat_cached_tokens_total")} / {rate("chat_prompt_tokens_total")}', "cached")),
        panel("Sequences that start over", "The cache is full: raise `chat.engine.cache_tokens` or add replicas.", "ops",
              (rare("chat_step_backs_total"), "step backs")),
    ],
    "Servers upstream": [
        panel("Failures", "Of OpenAI-protocol servers behind `[[chat.remote]]`, by what went wrong.", "ops",
              (rare("chat_remote_failures_total", "kind"), "{{kind}}"), width=24),
    ],
})


def onnx(job):
    only = f'job="{job}"'
    return [
        panel("Tokens that wait", "By model; the signal for autoscaling. At `batch.queue_tokens` requests are refused.", "short",
              (f"sum by (model) (onnx_queue_tokens{{{I}, {only}}})", "{{model}}")),
        panel("Tokens being computed", "Near `batch.batch_tokens` all the time: the model is busy.", "short",
              (f"sum by (model) (onnx_in_flight_tokens{{{I}, {only}}})", "{{model}}")),
        panel("Rows of a batch", "More is better for throughput.", "short",
              (f'{rate("onnx_batch_rows_sum", "model", only)} / {rate("onnx_batch_rows_count", "model", only)}', "{{model}}")),
        panel("Time of a batch", "95 in 100 are faster.", "s", *quantiles("onnx_batch_seconds", "model", only)),
    ]


EMBEDDING = ("Koine: embedding", "embedding_requests_total", {
    "Requests": [
        panel("By kind", "", "reqps", (rate("embedding_requests_total", "kind"), "{{kind}}"), stack=True),
        panel("By code", "ok, or the error by name.", "reqps", (rate("embedding_requests_total", "code"), "{{code}}"), stack=True),
        panel("Time", "95 in 100 are faster.", "s", *quantiles("embedding_request_seconds", "kind")),
        panel("Time by model", "95 in 100 are faster.", "s",
              *quantiles("gen_ai_server_request_duration_seconds", "gen_ai_request_model", 'job="koine-embedding"'), width=12),
        panel("In flight", "Requests that have come and not ended.", "short",
              (f"sum by (model) (embedding_in_flight_requests{{{I}}})", "{{model}}"), width=12),
    ],
    "Work": [
        panel("Inputs", "Texts and images.", "ops", (rate("embedding_inputs_total", "kind"), "{{kind}}"), width=12),
        panel("Tokens", "", "short", (rate("embedding_tokens_total"), "tokens"), width=12),
    ],
    "ONNX Runtime": onnx("koine-embedding"),
    "Servers upstream": [
        panel("Failures", "Of OpenAI-protocol servers behind `[[embedding.remote]]`, by what went wrong.", "ops",
              (rare("embedding_remote_failures_total", "kind"), "{{kind}}"), width=24),
    ],
})

SAFETY = ("Koine: content safety", "content_safety_requests_total", {
    "Calls": [
        panel("By call", "", "reqps", (rate("content_safety_requests_total", "call"), "{{call}}"), stack=True),
        panel("By code", "ok, or the error by name.", "reqps", (rate("content_safety_requests_total", "code"), "{{code}}"), stack=True),
        panel("Time", "95 in 100 are faster.", "s", *quantiles("content_safety_request_seconds", "call")),
        panel("In flight", "Calls that have come and not ended.", "short",
              (f"sum by (call) (content_safety_in_flight_requests{{{I}}})", "{{call}}"), width=24),
    ],
    "Verdicts": [
        panel("Passed and blocked", "", "ops", (rate("content_safety_verdicts_total", "direction, outcome"), "{{direction}} {{outcome}}"),
              stack=True),
        panel("Blocked", "Part of the verdicts. A jump is an attack, or a policy that is too strict.", "percentunit",
              (f'{rate("content_safety_verdicts_total", "direction", "outcome=" + chr(34) + "blocked" + chr(34))} '
               f'/ {rate("content_safety_verdicts_total", "direction")}', "{{direction}}")),
        panel("Why", "Category, attack or blocklist.", "ops",
              (rare("content_safety_filtered_total", "direction, reason"), "{{direction}} {{reason}}"), stack=True),
    ],
    "ONNX Runtime": onnx("koine-content-safety"),
})

DASHBOARDS = {"overview": OVERVIEW, "edge": EDGE, "chat": CHAT, "embedding": EMBEDDING, "content-safety": SAFETY}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def target(index, query):
    expression, legend = query
    query = {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
    # Points that lead to the trace of a request of that bucket.
    return {**query, "exemplar": True} if "_bucket" in expression else query


def grafana_panel(number, at, spec):
    field = {"unit": spec["unit"], "min": 0}
    if spec["kind"] == "timeseries":
        field["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if spec["stack"] else 0, "showPoints": "never",
            "stacking": {"mode": "normal" if spec["stack"] else "none", "group": "A"},
        }
    return {
        "id": number, "type": spec["kind"], "title": spec["title"], "description": spec["about"], "datasource": DATASOURCE,
        "gridPos": at, "fieldConfig": {"defaults": field, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}} if spec["kind"] == "timeseries" else {"graphMode": "area"},
        "targets": [target(i, query) for i, query in enumerate(spec["queries"])],
    }


def choice(label, series):
    """A variable with the values of a label; all of them are also what has no such label."""
    return {"name": label, "label": label.capitalize(), "type": "query", "datasource": DATASOURCE, "refresh": 2, "sort": 1,
            "query": {"query": f"label_values({series}, {label})", "refId": label}, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def grafana(slug, dashboard):
    title, instances, rows = dashboard
    panels, top, number = [], 0, 0
    for name, specs in rows.items():
        number += 1
        panels.append({"id": number, "type": "row", "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}})
        top, left, height = top + 1, 0, 0
        for spec in specs:
            if left + spec["width"] > 24:
                top, left = top + height, 0
            height = 4 if spec["kind"] == "stat" else 8
            number += 1
            panels.append(grafana_panel(number, {"h": height, "w": spec["width"], "x": left, "y": top}, spec))
            left += spec["width"]
        top += height
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        choice("namespace", instances),
        choice("instance", f"{instances}{{{N}}}"),
    ]
    return {
        "uid": f"koine-{slug}", "title": title, "tags": ["koine"], "editable": True, "schemaVersion": 39, "version": 1,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "browser", "graphTooltip": 1,
        "links": [{"title": "Koine", "type": "dashboards", "tags": ["koine"], "asDropdown": True, "keepTime": True}],
        "templating": {"list": variables}, "annotations": {"list": []}, "panels": panels,
    }


def rendered():
    return {f"{slug}.json": json.dumps(grafana(slug, spec), indent=1) + "\n" for slug, spec in DASHBOARDS.items()}


if __name__ == "__main__":
    HOME.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (HOME / name).write_text(text)
        sys.stdout.write(f"{HOME / name}\n")
