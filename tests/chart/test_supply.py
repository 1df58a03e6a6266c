"""What we build on: what deny.toml would say no to, notices and SBOM, and the dashboards' and alerts' one home."""

import importlib
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from tools import ROOT

sys.path.insert(0, str(ROOT / "deploy/supply"))
sys.path.insert(0, str(ROOT / "deploy/grafana"))
import dashboards
import notices

ALERTS = yaml.safe_load((ROOT / "helm/koine/files/alerts.yml").read_text())


@pytest.fixture(scope="module")
def metadata():
    return notices.metadata()


@pytest.mark.parametrize("service", ["edge", "chat", "embedding", "content-safety", "standalone"])
def test_every_linked_package_is_in_the_sbom_and_in_the_notices(metadata, service):
    own, others = notices.linked(metadata, service)
    bill, text = json.loads(notices.sbom(own, others)), notices.notices(own, others)
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == service
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bill["serialNumber"])
    refs = [component["bom-ref"] for component in bill["components"]]
    assert len(refs) == len(set(refs)) == len(others) > 50
    for package in others:
        if package["source"]:
            assert f"{package['name']} {package['version']} (" in text
            assert package["license"] or package["license_file"]


def test_the_same_lock_file_gives_the_same_bytes(metadata):
    own, others = notices.linked(metadata, "edge")
    again = notices.linked(notices.metadata(), "edge")
    assert notices.sbom(own, others) == notices.sbom(*again)
    assert notices.notices(own, others) == notices.notices(*again)


def test_the_platform_is_that_of_the_machine_that_builds(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    try:
        assert importlib.reload(notices).PLATFORM == "aarch64-unknown-linux-gnu"
    finally:
        monkeypatch.undo()
        importlib.reload(notices)


def test_only_chat_links_llama_and_the_edge_no_engine(metadata):
    def names(service):
        return {package["name"] for package in notices.linked(metadata, service)[1]}

    assert "llama-cpp-sys-2" in names("chat") and "ort" in names("embedding") and "ort" in names("content-safety")
    for service in ("edge", "embedding", "content-safety"):
        assert "llama-cpp-sys-2" not in names(service)
    for service in ("edge", "chat"):
        assert "ort" not in names(service)
    assert "llama.cpp/LICENSE" in notices.notices(*notices.linked(metadata, "chat"))


def test_every_linked_licence_is_one_that_deny_toml_allows(metadata):
    """cargo-deny judges the same in `make lint`; this reads the licences alone and needs no other program."""
    allowed = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])

    def fits(expression):
        choices = re.split(r"\s+OR\s+|\s*/\s*", expression.replace("(", "").replace(")", ""))
        return any(all(part in allowed for part in re.split(r"\s+AND\s+", choice)) for choice in choices)

    for package in notices.linked(metadata, "standalone")[1]:
        assert fits(package["license"]), (package["name"], package["license"])


def test_everything_that_deny_toml_lets_pass_says_why():
    for entry in tomllib.loads((ROOT / "deny.toml").read_text())["bans"]["skip"]:
        assert entry["reason"]


def test_deny_sh_is_a_shell_program():
    subprocess.run(["bash", "-n", ROOT / "deploy/supply/deny.sh"], check=True)


def test_the_dashboards_are_made_of_their_table():
    for name, text in dashboards.rendered().items():
        assert (dashboards.HOME / name).read_text() == text, "deploy/grafana/dashboards.py writes it anew"
    assert {file.name for file in dashboards.HOME.glob("*.json")} == set(dashboards.rendered())


def test_panels_neither_overlap_nor_share_a_number():
    for name, text in dashboards.rendered().items():
        board = json.loads(text)
        taken, numbers = set(), [panel["id"] for panel in board["panels"]]
        assert len(numbers) == len(set(numbers)), name
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert not cells & taken and at["x"] + at["w"] <= 24, (name, panel["title"])
            taken |= cells


def test_every_alert_says_who_is_woken_and_what_to_do():
    runbook = (ROOT / "docs/runbook.md").read_text()
    sections = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert sections == [rule["alert"] for rule in rules]
    for rule in rules:
        assert rule["for"] and rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"]


def bounds(metric):
    """The bounds of the buckets of a histogram, read where they are said; constants are followed by their name."""
    source = (ROOT / "crates/chassis/src/telemetry.rs").read_text()

    def numbers(text):
        return {float(n.replace("_", "")) for n in re.findall(r"\b\d[\d_]*\.\d+\b", text)}

    lists = {name: numbers(body) for name, body in re.findall(r"^const (\w+_BUCKETS): \[f64; \d+\] =\s*\[(.*?)\];", source, re.M | re.S)}
    others = re.search(r"^const OTHER_BUCKETS.*?^\];", source, re.M | re.S)[0]
    for ending, literal, name in re.findall(r'\(\s*"(\w+)",\s*&(?:\[(.*?)\]|(\w+)),?\s*\)', others, re.S):
        if metric.endswith(ending):
            return lists[name] if name else numbers(literal)
    return lists["LATENCY_BUCKETS"]


def test_the_threshold_of_an_alert_is_a_bound_of_its_buckets():
    """Between two bounds a quantile is only a guess."""
    checked = []
    for rule in (rule for group in ALERTS["groups"] for rule in group["rules"]):
        if match := re.search(r"histogram_quantile\(.*?(\w+)_bucket.*> ([\d.]+)$", rule["expr"].strip(), re.S):
            checked.append(rule["alert"])
            assert float(match[2]) in bounds(match[1]), (rule["alert"], sorted(bounds(match[1])))
    assert len(checked) >= 3


def test_alerts_and_panels_tell_installations_apart():
    for rule in (rule for group in ALERTS["groups"] for rule in group["rules"]):
        sums = re.findall(r"\bsum\b(?! by \(namespace\b)", rule["expr"])
        assert not sums, rule["alert"]
    for name, text in dashboards.rendered().items():
        board = json.loads(text)
        for panel in board["panels"]:
            for query in panel.get("targets", []):
                selectors = re.findall(r"\w+\{([^}]*)\}", query["expr"])
                assert selectors and all('namespace=~"$namespace"' in s for s in selectors), (name, panel["title"])
        chosen = {v["name"]: v for v in board["templating"]["list"]}
        # Where there is no such label, as with Compose, `.*` fits its absence.
        assert chosen["namespace"]["allValue"] == ".*" and "$namespace" in chosen["instance"]["query"]["query"]
