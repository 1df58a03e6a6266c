"""docker-compose.yml and what stands behind it: Compose itself reads it, and each service is as closed as it can be.

That the services run with these commands and variables is shown in tests/clients, which starts them as processes.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time

import pytest
import yaml
from tools import BINARIES, ROOT, run

OURS = ("edge", "chat", "embedding", "content-safety")
PROFILES = ("--profile", "*")


def resolved(**env):
    """The file as Compose understands it, with every profile."""
    done = run("docker-compose", "-f", ROOT / "docker-compose.yml", *PROFILES, "config", "--format", "json",
               env={"KOINE_KEY": "k", **env})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def services():
    return resolved()["services"]


def test_without_a_key_compose_says_what_to_set():
    done = run("docker-compose", "-f", ROOT / "docker-compose.yml", "config", "--quiet")
    assert done.returncode != 0 and "set KOINE_KEY to the key that clients send" in done.stderr


def test_a_key_in_a_file_beside_it_is_enough_for_every_command(tmp_path):
    """`build`, `pull` and the rest read the whole file, so each would ask for the key."""
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env").write_text("KOINE_KEY=from-the-file\nCHAT_THREADS=3\n")
    done = run("docker-compose", "config", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services["edge"]["environment"]["EDGE__AUTH__KEYS"] == '["from-the-file"]'
    assert services["chat"]["environment"]["CHAT__ENGINE__THREADS"] == "3"
    for file in (".gitignore", ".dockerignore"):
        assert {".env", "/.env"} & set((ROOT / file).read_text().split()), f"{file}: the key stays here"


def test_an_option_that_the_specification_does_not_know_is_found(tmp_path):
    text = (ROOT / "docker-compose.yml").read_text().replace("pids_limit: 512", "pids_limt: 512")
    (tmp_path / "docker-compose.yml").write_text(text)
    done = run("docker-compose", "-f", tmp_path / "docker-compose.yml", "config", "--quiet", env={"KOINE_KEY": "k"})
    assert done.returncode != 0 and "pids_limt" in done.stderr


def test_every_container_is_closed(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and not service.get("privileged"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] == 512, name
        user = service["user"].split(":")[0]
        assert user.isdigit() and user != "0", name
        assert not re.search(r":latest$|^[^:]+$", service["image"]), name


def test_ports_are_on_this_machine_alone(services):
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
    assert [p["published"] for p in services["edge"]["ports"]] == ["8080"]
    assert not any(services[name].get("ports") for name in OURS if name != "edge")


def test_what_is_watched_runs_only_with_its_profile(services):
    assert {name for name, s in services.items() if s.get("profiles") == ["observe"]} == {
        "collector", "jaeger", "prometheus", "grafana"}


def test_each_service_waits_for_what_it_needs_to_be_healthy(services):
    waits = {n: {k: v["condition"] for k, v in s.get("depends_on", {}).items()} for n, s in services.items()}
    assert waits["edge"] == dict.fromkeys(("chat", "embedding", "content-safety", "redis"), "service_healthy")
    for name in OURS[1:]:
        assert waits[name] == {"models": "service_completed_successfully"}
    for name in services.keys() - {"models", "collector"}:
        assert services[name]["healthcheck"]["test"][0] == "CMD", name


def test_a_service_may_drain_before_it_is_killed(services):
    shown = run(BINARIES / "koine", "config", "show").stdout
    drains = [int(ms) / 1000 for ms in re.findall(r"^drain_timeout_ms = (\d+)$", shown, re.MULTILINE)]
    assert drains
    for name in OURS:
        (delay,) = (int(v) / 1000 for k, v in services[name]["environment"].items() if k.endswith("__SERVICE__DRAIN_DELAY_MS"))
        grace = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", services[name]["stop_grace_period"])
        assert int(grace[1] or 0) * 60 + int(grace[2] or 0) > delay + max(drains), name


SHARED_CORES = {"CHAT_THREADS": "2", "EMBEDDING_THREADS": "1", "CONTENT_SAFETY_COPIES": "1"}


@pytest.mark.parametrize("chosen", [{}, {"OTLP_ENDPOINT": "http://collector:4317"} | SHARED_CORES], ids=["defaults", "chosen"])
@pytest.mark.parametrize("service", OURS)
def test_the_binary_takes_its_environment(service, chosen):
    environment = resolved(**chosen)["services"][service]["environment"]
    done = run(BINARIES / service, "--check", env=environment)
    assert done.returncode == 0, done.stderr


def test_every_variable_of_cores_reaches_its_service_and_its_guide():
    services, guide = resolved(**SHARED_CORES)["services"], (ROOT / "docs/scale.md").read_text()
    for variable, value in SHARED_CORES.items():
        assert f"`{variable}`" in guide, variable
        service, option = variable.lower().rsplit("_", 1)
        found = [v for k, v in services[service.replace("_", "-")]["environment"].items() if k.endswith(f"__{option.upper()}")]
        assert found == [value], variable


def test_redis_runs_with_its_command_as_its_user_and_answers_its_health_check(services):
    redis = services["redis"]
    command, check = redis["command"], redis["healthcheck"]["test"]
    assert command[0] == "redis-server" and check[0] == "CMD"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    uid, gid = (int(part) for part in redis["user"].split(":"))
    confined = {"user": uid, "group": gid, "extra_groups": []} if os.geteuid() == 0 else {}
    process = subprocess.Popen([shutil.which(command[0]), *command[1:], "--port", port, "--bind", "127.0.0.1"], cwd="/",
                               stdout=subprocess.DEVNULL, **confined)
    try:
        deadline = time.monotonic() + 30
        while True:
            done = run(shutil.which(check[1]), "-p", port, *check[2:])
            if done.stdout.strip() == "PONG":
                break
            assert process.poll() is None and time.monotonic() < deadline, done.stderr
        kept = run(shutil.which(check[1]), "-p", port, "config", "get", "maxmemory").stdout.split()
        assert kept == ["maxmemory", str(64 * 1024 * 1024)]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_every_file_that_is_mounted_is_here(services):
    mounted = [v["source"] for s in services.values() for v in s.get("volumes", []) if v["type"] == "bind"]
    assert len(mounted) == 5
    for source in mounted:
        assert (ROOT / source).exists(), source


def test_prometheus_asks_the_admin_ports_of_every_container_of_a_service(services):
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    wanted = []
    for name in OURS:
        prefix = name.upper().replace("-", "_")
        port = int(services[name]["environment"][f"{prefix}__SERVICE__ADMIN_LISTEN"].split(":")[1])
        # Each address behind the name is a target of its own: `--scale chat=2` makes two.
        wanted.append({"job_name": f"koine-{name}", "dns_sd_configs": [{"names": [name], "type": "A", "port": port}]})
    assert config["scrape_configs"] == wanted
    mounts = [v["target"] for v in services["prometheus"]["volumes"]]
    assert set(config["rule_files"]) <= set(mounts)


def test_the_collector_s_pipelines_name_what_it_has(services):
    config = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= set(config[kind]), kind
        # The limiter is of use only in front.
        assert pipeline["processors"][0] == "memory_limiter"
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")
    assert config["exporters"]["otlp"]["endpoint"].split(":")[0] in services


def test_grafana_is_told_where_dashboards_and_prometheus_are(services):
    home = ROOT / "deploy/grafana/provisioning"
    provider = yaml.safe_load((home / "dashboards/koine.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] in [v["target"] for v in services["grafana"]["volumes"]]
    for source in yaml.safe_load((home / "datasources/koine.yaml").read_text())["datasources"]:
        assert re.match(r"http://([a-z]+):", source["url"])[1] in services


def test_a_point_of_a_histogram_leads_to_a_page_that_is_open_to_all(services):
    """Grafana's own page of a trace is for those who may edit; nobody may here."""
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/koine.yaml").read_text())["datasources"]
    (link,) = next(s for s in sources if s["type"] == "prometheus")["jsonData"]["exemplarTraceIdDestinations"]
    (port,) = services["jaeger"]["ports"]
    # Provisioning takes `$NAME` for a variable of the environment, and `$$` for a `$`.
    assert link["url"] == f"http://{port['host_ip']}:{port['published']}/trace/$${{__value.raw}}" and "datasourceUid" not in link


def test_what_is_carried_to_a_host_without_a_network_is_all_that_compose_reads(services):
    guide = (ROOT / "docs/install.md").read_text()
    carried = re.search(r"^tar -czf koine\.tar\.gz (.*)$", guide, re.MULTILINE)[1].split()
    assert {".env", "docker-compose.yml"} <= set(carried)
    for name, service in services.items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                path = os.path.relpath(volume["source"], ROOT)
                assert any(path == c or path.startswith(f"{c}/") for c in carried), f"{name}: {path}"
