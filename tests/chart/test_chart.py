"""The chart: what it renders, that Kubernetes would take it, that it is as secure as it says, and that contradictions are told."""

import functools
import json
import re
import shutil
import tomllib

import jsonschema
import kubernetes_validate.utils
import pytest
import readme
import render
import yaml
from render import CASES, CHART, GOLDEN, containers, objects, of_kind, pods, template
from tools import BINARIES, ROOT, run

# The oldest that the chart takes, one between, and the newest.
KUBERNETES = ("1.30", "1.34", "1.37")
# Kinds that operators bring, by their own definitions.
FOREIGN = {file.stem: json.loads(file.read_text()) for file in (ROOT / "tests/chart/schemas").glob("*.json")}
COMPONENTS = ("edge", "chat", "embedding", "content-safety")
# The package reads the same megabytes for each object; once is enough.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
cases = pytest.mark.parametrize("case", CASES)
AUTH = ("--set", "edge.auth.existingSecret=koine-keys")


@cases
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_renders_are_the_golden_ones_with_both_helms(case, helm):
    assert render.golden(case, helm) == (GOLDEN / f"{case}.yaml").read_text(), "tests/chart/render.py writes it anew"


def test_every_golden_render_has_its_values():
    assert {file.stem for file in GOLDEN.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_the_chart_passes_lint(helm):
    done = run(helm, "lint", "--strict", CHART, "-f", CASES["default"])
    assert done.returncode == 0, done.stdout + done.stderr


@cases
def test_objects_fit_the_schemas_of_three_versions_of_kubernetes(case):
    for thing in objects(case):
        if thing["kind"] not in FOREIGN:
            for version in KUBERNETES:
                kubernetes_validate.validate(thing, version, strict=True)


def test_objects_of_operators_fit_the_operators_own_definitions():
    seen = set()
    for case in CASES:
        for thing in of_kind(case, *FOREIGN):
            jsonschema.Draft202012Validator(FOREIGN[thing["kind"]]).validate(thing)
            seen.add(thing["kind"])
    assert seen == set(FOREIGN)


@cases
def test_no_pod_runs_as_root_or_may_become_it(case):
    for name, spec in pods(case):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, name
        assert not any(spec.get(k) for k in ("hostNetwork", "hostPID", "hostIPC")), name
    for name, container in containers(case):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
        }, name


@cases
def test_every_image_says_which_version_it_is(case):
    for name, container in containers(case):
        tag = re.search(r"[^/]:([A-Za-z0-9_][A-Za-z0-9_.-]*)$|@sha256:[0-9a-f]{64}$", container["image"])
        assert tag and tag[1] != "latest", (name, container["image"])


@cases
def test_every_container_says_what_it_takes(case):
    for name, container in containers(case):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]) and "memory" in resources["limits"], name
        # By design, and documented in values.yaml: a limit of processors would stall answers on idle nodes.
        assert "cpu" not in resources["limits"], name


@cases
def test_every_pod_but_the_test_has_a_policy_and_a_budget(case):
    off = yaml.safe_load(CASES[case].read_text())
    policies = [p["spec"]["podSelector"]["matchLabels"] for p in of_kind(case, "NetworkPolicy")]
    budgets = [b["spec"]["selector"]["matchLabels"] for b in of_kind(case, "PodDisruptionBudget")]
    for deployment in of_kind(case, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        selects = [p for p in policies if p.items() <= labels.items()]
        assert len(selects) == int(off.get("networkPolicy", {}).get("enabled", True))
        if deployment["metadata"]["labels"]["app.kubernetes.io/component"] != "redis":
            wanted = off.get("defaults", {}).get("podDisruptionBudget", {}).get("enabled", True)
            assert len([b for b in budgets if b.items() <= labels.items()]) == int(wanted)


def test_only_the_edge_reaches_the_services_and_nobody_else_is_let_in():
    for policy in of_kind("default", "NetworkPolicy"):
        component = policy["metadata"]["labels"]["app.kubernetes.io/component"]
        door, admin = policy["spec"]["ingress"]
        assert admin["ports"] == [{"port": "admin", "protocol": "TCP"}] and admin["from"]
        if component != "edge":
            assert [p["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for p in door["from"]] == ["edge"]


def ways(things, component):
    """The rules by which pods of a component may connect."""
    policies = [t for t in things if t["kind"] == "NetworkPolicy"]
    return next(p["spec"]["egress"] for p in policies if p["metadata"]["labels"]["app.kubernetes.io/component"] == component)


def ports(rules):
    return {port["port"] for rule in rules for port in rule["ports"]}


def allowed_ports(component, case):
    return ports(ways(objects(case), component))


def rendered(tmp_path, values, helm="helm4", release="koine"):
    """What these values install, laid over the least that can be said."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = run(helm, "template", release, CHART, "-n", render.NAMESPACE, *AUTH, "-f", file)
    assert done.returncode == 0, done.stderr
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def named(things, kind, name):
    return next(t for t in things if t["kind"] == kind and t["metadata"]["name"] == name)


def environment(things, name):
    container = named(things, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container["env"]}


def test_what_the_values_lead_to_is_what_the_policies_let_through():
    assert allowed_ports("edge", "default") == {53, 50051, 50052, 50053}
    assert allowed_ports("edge", "ha") == {53, 50051, 50052, 50053, 6379}
    assert allowed_ports("edge", "keda-gateway") == {53, 50051, 50052, 50053, 6379, 4317}
    assert allowed_ports("chat", "default") == {53, 443}
    # No weights are fetched: a server upstream and the collector are all that is left.
    assert allowed_ports("chat", "keda-gateway") == {53, 4317, 8000}
    assert allowed_ports("chat", "gpu") == {53}
    # The provider of tokens, the proxy of `defaults.env`, which `edge.env` takes the place of; the Redis for trials.
    assert allowed_ports("edge", "overrides") == {53, 5353, 50051, 50052, 50053, 6379, 8443}
    # The index of packages beside the model hub, and servers upstream: in the config, and in a variable.
    assert allowed_ports("chat", "overrides") == {53, 5353, 443, 3141, 8000}
    assert allowed_ports("embedding", "overrides") == {53, 5353, 443, 3141, 8080}
    assert allowed_ports("content-safety", "overrides") == {53, 5353, 443, 3141, 3128}


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_urls_of_the_config_open_their_ports_and_no_others(tmp_path, helm):
    def edge(config="", **values):
        values = {"edge": {"config": config, **values.pop("edge", {})}, **values}
        return ports(ways(rendered(tmp_path, values, helm), "edge")) - {53, 50051, 50052, 50053}

    jwt = '[edge.auth.jwt]\nissuers = ["https://login.example.com"]\naudiences = ["a"]\n'
    assert edge() == set()
    assert edge(jwt) == {443}
    assert edge(jwt + 'jwks_url = "http://keys.internal:8081/keys"\n') == {8081}
    assert edge("# " + jwt.replace("\n", "\n# ")) == set()
    assert edge('[edge.cors]\nallowed_origins = ["https://app.example.com"]') == set()
    assert edge('[edge.state]\nredis_url = "rediss://:secret@redis.example"') == {6379}
    assert edge('[edge.state]\nredis_url = "redis://redis.example:7000/1"') == {7000}
    assert edge('[edge.service.telemetry]\notlp_endpoint = "http://collector-2"') == {80}
    assert edge(telemetry={"otlpEndpoint": "http://collector-2:4317/"}) == {4317}
    assert edge(chat={"enabled": False}, edge={"endpoints": {"chat": ["http://chat.other:50061"]}}) == {50061}
    assert edge(edge={"env": [{"name": "EDGE__CHAT__ENDPOINTS", "value": '["http://[fd00::1]:50062"]'}]}) == {50062}
    # What another object holds is not known; of Redis `redis.port` says it.
    url = {"name": "EDGE__STATE__REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
    assert edge(edge={"env": [url]}, redis={"port": 6380}) == {6380}


def test_a_port_that_an_egress_rule_names_is_left_to_that_rule():
    (rule,) = [r for r in ways(objects("keda-gateway"), "chat") if {"port": 8000, "protocol": "TCP"} in r["ports"]]
    assert rule["to"]


@cases
def test_a_pod_has_time_for_its_delay_and_its_drain(case):
    for deployment in of_kind(case, "Deployment"):
        spec = deployment["spec"]["template"]["spec"]
        container = spec["containers"][0]
        env = {e["name"].partition("__SERVICE__")[2]: e.get("value") for e in container.get("env", [])}
        if deployment["metadata"]["labels"]["app.kubernetes.io/component"] in COMPONENTS:
            delay, drain = int(env["DRAIN_DELAY_MS"]) / 1000, int(env["DRAIN_TIMEOUT_MS"]) / 1000
            assert delay > 0 and spec["terminationGracePeriodSeconds"] > delay + drain
            # The process waits by itself: nothing in the image has to.
            assert "lifecycle" not in container
            assert {p for p in container if p.endswith("Probe")} == {"startupProbe", "livenessProbe", "readinessProbe"}


@cases
def test_selectors_find_their_pods_and_hold_no_version(case):
    deployments = of_kind(case, "Deployment")
    for deployment in deployments:
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert not any("version" in k or "chart" in k for k in selector)
    for service in of_kind(case, "Service"):
        found = [d for d in deployments if service["spec"]["selector"].items() <= d["spec"]["template"]["metadata"]["labels"].items()]
        assert len(found) == 1, service["metadata"]["name"]
        ports = {p["name"] for p in found[0]["spec"]["template"]["spec"]["containers"][0]["ports"]}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    for monitor in of_kind(case, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [s for s in of_kind(case, "Service") if wanted <= s["metadata"]["labels"].items()]
        assert [s["spec"]["ports"][0]["name"] for s in found] == ["admin"]
        assert found[0]["metadata"]["labels"][monitor["spec"]["jobLabel"]].startswith("koine-")


@cases
def test_a_scaler_leaves_the_number_of_pods_alone(case):
    scaled = {s["spec"]["scaleTargetRef"]["name"] for s in of_kind(case, "HorizontalPodAutoscaler", "ScaledObject")}
    for deployment in of_kind(case, "Deployment"):
        assert ("replicas" in deployment["spec"]) != (deployment["metadata"]["name"] in scaled)


@cases
def test_nothing_of_a_container_is_said_twice(case):
    """Server-side apply refuses a list that has one key twice."""
    for name, spec in pods(case):
        for container in spec.get("initContainers", []) + spec["containers"]:
            for what, key in (("env", "name"), ("ports", "containerPort"), ("volumeMounts", "mountPath")):
                keys = [entry[key] for entry in container.get(what, [])]
                assert len(keys) == len(set(keys)), (name, what, keys)
        volumes = [volume["name"] for volume in spec.get("volumes", [])]
        assert len(volumes) == len(set(volumes)), name


def test_variables_of_the_operator_win_and_what_they_build_on_stands_before_them():
    chat = environment(objects("overrides"), "koine-inference-chat")
    assert chat["CHAT__ENGINE__THREADS"] == "8" and chat["CHAT__SERVICE__DRAIN_TIMEOUT_MS"] == "45500"
    assert list(chat).index("POD_NAME") < list(chat).index("OTEL_RESOURCE_ATTRIBUTES")
    grace = named(objects("overrides"), "Deployment", "koine-inference-chat")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace == 5 + 46 + 10


@cases
def test_traces_say_which_pod_they_are_of(case):
    for deployment in of_kind(case, "Deployment"):
        if deployment["metadata"]["labels"]["app.kubernetes.io/component"] in COMPONENTS:
            env = environment(objects(case), deployment["metadata"]["name"])
            for field, variable in (("metadata.name", "POD_NAME"), ("metadata.namespace", "POD_NAMESPACE")):
                assert env[variable] == {"fieldRef": {"fieldPath": field}}
            assert "k8s.pod.name=$(POD_NAME)" in env["OTEL_RESOURCE_ATTRIBUTES"]
    default = environment(objects("default"), "koine-edge")["OTEL_RESOURCE_ATTRIBUTES"]
    assert default == "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),service.instance.id=$(POD_NAME)"


def test_every_pod_pulls_with_the_secrets_and_goes_where_the_values_say():
    for name, spec in pods("overrides"):
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}, name
        assert spec["tolerations"] and spec["priorityClassName"] == "koine", name
    assert {name for name, _ in pods("overrides")} == {f"koine-inference-{c}" for c in (*COMPONENTS, "redis", "test")}


def test_the_image_with_the_models_has_a_tag_of_its_own(tmp_path):
    images = {name: c["image"] for name, c in containers("overrides")}
    assert images["koine-inference-chat/models"] == images["koine-inference-test/test"] == "registry.example.com/koine/models:0.1.0-mirror"
    digest = "sha256:" + 64 * "1"
    (pod,) = [t for t in rendered(tmp_path, {"models": {"image": {"digest": digest}}}) if t["kind"] == "Pod"]
    assert pod["spec"]["containers"][0]["image"] == f"koine/models@{digest}"


def test_pods_that_are_replaced_roll_nothing(tmp_path):
    spec = named(objects("overrides"), "Deployment", "koine-inference-chat")["spec"]
    assert spec["strategy"] == {"type": "Recreate"} and spec["progressDeadlineSeconds"] == 1800


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_a_platform_that_gives_out_users_is_not_told_one(tmp_path, helm):
    nobody = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    values = {"defaults": nobody, "redis": {"mode": "trial"}, "edge": {"containerSecurityContext": {"runAsNonRoot": True}}}
    things = rendered(tmp_path, values, helm)
    specs = [t["spec"]["template"]["spec"] for t in things if t["kind"] == "Deployment"] + [t["spec"] for t in things if t["kind"] == "Pod"]
    assert len(specs) == 6
    for spec in specs:
        assert spec["securityContext"].keys() == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert named(things, "Deployment", "koine-edge")["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize("config", [
    "\n  [chat.engine]\n  queue = 3\n", "\n\n\t# after a tab\n[chat.engine]\n", "  # deep\n # less\n[chat.engine]\n", "# a: 'b' # c\n\n\n"])
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_a_config_arrives_as_it_was_written(tmp_path, config, helm):
    things = rendered(tmp_path, {"chat": {"config": config}}, helm)
    assert named(things, "ConfigMap", "koine-chat")["data"]["koine.toml"].rstrip("\n") == config.rstrip("\n")


def test_names_are_the_release_s_and_two_long_ones_never_become_one(tmp_path):
    def services(release, **values):
        names = {t["metadata"]["name"] for t in rendered(tmp_path, values, release=release) if t["kind"] == "Service"}
        assert all(len(name) <= 63 for name in names)
        return names

    assert "koine-edge" in services("koine") and "prod-koine-edge" in services("prod")
    assert "prod-ai-edge" in services("prod", nameOverride="ai") and "ai-edge" in services("prod", fullnameOverride="ai")
    long = "a" * 40
    assert not services(f"{long}-one") & services(f"{long}-two")


def test_a_redis_with_tls_is_known_by_its_own_authority(tmp_path):
    redis = {"mode": "external", "existingSecret": "koine-redis", "ca": {"existingSecret": "koine-redis-ca", "key": "root.pem"}}
    things = rendered(tmp_path, {"redis": redis})
    edge = environment(things, "koine-edge")
    assert edge["EDGE__STATE__REDIS_CA_FILE"] == "/etc/koine-redis/ca.crt"
    assert mounted(named(things, "Deployment", "koine-edge"))["/etc/koine-redis/ca.crt"] == "koine-redis-ca"
    assert "redis" not in str(named(things, "Deployment", "koine-chat"))


def test_keda_shows_prometheus_what_it_asks_for(tmp_path):
    trigger = {"prometheusAuthenticationRef": {"name": "prometheus", "kind": "TriggerAuthentication"}, "prometheusAuthModes": "bearer"}
    monitoring = {"prometheusAddress": "https://prometheus:9090", "serviceMonitor": {"enabled": True}, **trigger}
    things = rendered(tmp_path, {"monitoring": monitoring, "chat": {"autoscaling": {"mode": "keda", "queue": 4}}})
    scaler = named(things, "ScaledObject", "koine-chat")
    jsonschema.Draft202012Validator(FOREIGN["ScaledObject"]).validate(scaler)
    asked = scaler["spec"]["triggers"][-1]
    assert asked["metadata"]["authModes"] == "bearer" and asked["authenticationRef"]["name"] == "prometheus"


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_alerts_look_for_what_is_installed_and_name_the_runbook(tmp_path, helm):
    monitoring = {"rules": {"enabled": True, "runbookUrl": "https://wiki.example.com/koine"}}
    values = {"monitoring": monitoring, "embedding": {"enabled": False}}
    rules = named(rendered(tmp_path, values, helm), "PrometheusRule", "koine")["spec"]["groups"]
    alerts = {rule["alert"]: rule for group in rules for rule in group["rules"]}
    wanted = [f'absent(up{{job="koine-{c}", namespace="inference"}})' for c in ("chat", "content-safety", "edge")]
    assert alerts["KoineAbsent"]["expr"] == " or ".join(wanted)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/koine#{name.lower()}"
    (plain,) = of_kind("ha", "PrometheusRule")
    written = yaml.safe_load((CHART / "files/alerts.yml").read_text())
    for group, there in zip(plain["spec"]["groups"], written["groups"], strict=True):
        assert [r for r in group["rules"] if r["alert"] != "KoineAbsent"] == [r for r in there["rules"] if r["alert"] != "KoineAbsent"]


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_two_releases_have_dashboards_of_their_own(tmp_path, helm):
    """Grafana's sidecar knows them by the name of their file, Grafana by their uid and title."""

    def boards(release):
        maps = [t for t in rendered(tmp_path, {"monitoring": {"dashboards": {"enabled": True}}}, helm, release) if t["kind"] == "ConfigMap"]
        return {k: json.loads(v) for m in maps for k, v in m["data"].items() if k.endswith(".json")}

    one, two = boards("koine"), boards("koine-b")
    assert len(one) == len(two) == 5 and not one.keys() & two.keys()
    for key in ("uid", "title"):
        assert len({b[key] for b in (*one.values(), *two.values())}) == 10
    written = {json.loads(file.read_text())["title"]: json.loads(file.read_text()) for file in (CHART / "files/dashboards").glob("*.json")}
    for board in one.values():
        assert len(board["uid"]) <= 40
        plain = written[board["title"].removesuffix(" (inference/koine)")]
        assert board["panels"] == plain["panels"]
        assert next(v for v in board["templating"]["list"] if v["name"] == "namespace")["current"]["value"] == "inference"


def test_secrets_are_named_and_never_made():
    for case in CASES:
        assert of_kind(case, "Secret") == []


def resolved(entry, folder):
    """A variable's value; what the cluster would fill in is made up, and files of Secrets are put into `folder`."""
    source = entry.get("valueFrom", {})
    if "resourceFieldRef" in source:
        return "2"
    if "fieldRef" in source:
        return "a-name"
    if "secretKeyRef" in source:
        return "redis://:password@redis.example:6379"
    value = entry["value"]
    if (match := re.fullmatch(r"/etc/(koine-keys|koine-token|koine-tls|koine-internal)/([\w.-]+)", value)) is None:
        return value
    file = folder / match[1] / match[2]
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        if "tls" in match[1] or "internal" in match[1]:
            certificate(file.parent)
        else:
            file.write_text("a-key-of-many-characters\n")
    return str(file)


def certificate(folder):
    """What a Secret with a certificate holds: one that signed itself."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=koine -addext subjectAltName=DNS:koine -days 2"
    done = run("/usr/bin/env", *command.split(), "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    assert done.returncode == 0, done.stderr
    shutil.copy(folder / "tls.crt", folder / "ca.crt")


@cases
def test_the_real_binaries_take_each_config_and_each_variable(case, tmp_path):
    configs = {c["metadata"]["name"]: c["data"]["koine.toml"] for c in of_kind(case, "ConfigMap") if "koine.toml" in c["data"]}
    checked = set()
    for deployment in of_kind(case, "Deployment"):
        component = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        if component not in COMPONENTS:
            continue
        file = tmp_path / f"{component}.toml"
        file.write_text(configs[deployment["metadata"]["name"]])
        tomllib.loads(file.read_text())
        env = {e["name"]: resolved(e, tmp_path) for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        env["KOINE_CONFIG"] = str(file)
        if env.pop(device := f"{component.upper()}__RUNTIME__DEVICE", None):
            # These binaries are built for processors; that they know the option is all that can be seen of it here.
            done = run(BINARIES / component, "--check", env=env | {device: "cuda"})
            assert done.returncode == 0 or "built without the `cuda` feature" in done.stderr
        done = run(BINARIES / component, "--check", env=env)
        assert done.returncode == 0, done.stderr
        whole = run(BINARIES / "koine", "--config", file, "config", "check")
        assert whole.returncode == 0, whole.stderr
        checked.add(component)
    assert checked >= {"edge"}


def mounted(deployment):
    """Every file of a Secret that the pod has, with the Secret."""
    spec = deployment["spec"]["template"]["spec"]
    paths = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
    secrets = {v["name"]: v["secret"] for v in spec["volumes"] if "secret" in v}
    return {f"{paths[n]}/{i['path']}": s["secretName"] for n, s in secrets.items() for i in s["items"]}


@cases
def test_every_file_of_a_lock_is_mounted_where_the_option_says(case):
    for deployment in of_kind(case, "Deployment"):
        files = mounted(deployment)
        for entry in deployment["spec"]["template"]["spec"]["containers"][0].get("env", []):
            if re.match(r"/etc/koine-(keys|token|tls|internal)/", entry.get("value", "")):
                assert entry["value"] in files, entry
    for made in of_kind(case, "Certificate"):
        assert made["spec"]["secretName"] in {s for d in of_kind(case, "Deployment") for s in mounted(d).values()}


@pytest.mark.parametrize("case", ["tls", "cert-manager"])
def test_with_tls_both_sides_speak_it_and_say_so(case):
    services = {s["metadata"]["name"]: s["spec"]["ports"][0].get("appProtocol") for s in of_kind(case, "Service")}
    deployments = {d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0] for d in of_kind(case, "Deployment")}
    edge = {e["name"]: e.get("value") for e in deployments["koine-edge"]["env"]}
    assert edge["EDGE__TLS__CERTIFICATE_FILE"] and edge["EDGE__DOORS__TLS__CA_FILE"]
    named = []
    for component in COMPONENTS:
        assert services[f"koine-{component}"] == "https"
        if component != "edge":
            prefix = component.upper().replace("-", "_")
            env = {e["name"]: e.get("value") for e in deployments[f"koine-{component}"]["env"]}
            # Who shows no certificate of the same authority is not let in.
            assert env[f"{prefix}__DOOR__TLS__CLIENT_CA_FILE"] == edge["EDGE__DOORS__TLS__CA_FILE"]
            assert env.get(f"{prefix}__DOOR__TOKEN_FILE") == edge.get("EDGE__DOORS__TOKEN_FILE")
            (url,) = json.loads(edge[f"EDGE__{prefix}__ENDPOINTS"])
            assert url.startswith("https://")
            named.append(url.removeprefix("https://").rsplit(":", 1)[0])
    # Without a name of their own, the certificate is for the hosts that the edge dials.
    for made in of_kind(case, "Certificate"):
        if made["metadata"]["name"] == "koine-internal-tls":
            assert set(named) <= set(made["spec"]["dnsNames"])
        else:
            assert "koine.example.com" in made["spec"]["dnsNames"]
    assert len(of_kind(case, "Certificate")) == (2 if case == "cert-manager" else 0)
    assert (case == "tls") == ("EDGE__DOORS__TLS__SERVER_NAME" in edge)


def test_the_init_container_fetches_what_the_default_config_serves():
    """Read from the binary itself, so that a new default model is not forgotten here."""
    served = {line.split()[0] for line in run(BINARIES / "koine", "models", "list").stdout.splitlines() if line.endswith(", served")}
    pulled = set()
    for name, container in containers("default"):
        if name.endswith("/models"):
            assert container["args"][:2] == ["models", "pull"]
            pulled |= set(container["args"][2:])
    assert pulled == served


def test_a_changed_config_rolls_the_pods_of_that_service_alone():
    def sums(*words):
        found = [o for o in yaml.safe_load_all(template(*AUTH, *words).stdout) if o and o["kind"] == "Deployment"]
        return {d["metadata"]["name"]: d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for d in found}

    before, after = sums(), sums("--set", "chat.config=[chat.engine]\nqueue = 3\n")
    assert {name for name in before if before[name] != after[name]} == {"koine-chat"}


WRONG = {
    "no key": ([], "edge.auth.existingSecret: name a Secret"),
    "key and open": ([*AUTH, "--set", "edge.auth.disabled=true"], "contradict each other"),
    "redis without its secret": ([*AUTH, "--set", "redis.mode=external"], "redis.existingSecret: needed"),
    "redis secret unused": ([*AUTH, "--set", "redis.existingSecret=x"], "redis.existingSecret: not used"),
    "nothing screened unsaid": ([*AUTH, "--set", "contentSafety.enabled=false"], 'policy = ""'),
    "no model service": ([*AUTH, "--set", "chat.enabled=false,embedding.enabled=false"], "neither a chat nor an embedding"),
    "ingress without edge": (["--set", "edge.enabled=false,ingress.enabled=true"], "edge.enabled is false"),
    "fewer than fewest": ([*AUTH, "--set", "chat.autoscaling.mode=hpa,chat.autoscaling.maxReplicas=1"], "minReplicas 2 is more"),
    "nothing to scale by": ([*AUTH, "--set", "chat.autoscaling.mode=hpa,chat.autoscaling.cpu=0"], "nothing to scale by"),
    "keda blind": ([*AUTH, "--set", "chat.autoscaling.mode=keda,chat.autoscaling.queue=4"], "monitoring.prometheusAddress"),
    "volume unnamed": ([*AUTH, "--set", "models.source=volume"], "chat.models.volume: needed"),
    "volume over image": ([*AUTH, "--set", "models.source=image,chat.models.volume.emptyDir.medium=Memory"], "would hide"),
    "gateway unnamed": ([*AUTH, "--set", "gateway.enabled=true"], "gateway.parentRefs"),
    "edge on a gpu": ([*AUTH, "--set", "edge.gpu.count=1"], "edge.gpu.count"),
    "two chats": ([*AUTH, "--set", "edge.endpoints.chat[0]=http://chat.other:50051"], "chat.enabled=false"),
    "keda unwatched": (
        [*AUTH, "--set", "chat.autoscaling.mode=keda,chat.autoscaling.queue=4,monitoring.prometheusAddress=http://p:9090"],
        "monitoring.serviceMonitor.enabled: needed for chat.autoscaling.queue"),
    "keda half known": ([*AUTH, "--set", "monitoring.prometheusAuthModes=bearer"], "KEDA needs both or neither"),
    "config that is no TOML": ([*AUTH, "--set", "chat.config=[chat"], "chat.config: is not TOML: "),
    "a key twice": ([*AUTH, "--set", "edge.config=[edge.api]\ndocs = true\ndocs = false\n"], "edge.config: is not TOML: "),
    "keys in a comment": (["--set", "edge.config=# [edge.auth.jwt] later"], "edge.auth.existingSecret: name a Secret"),
    "tokens of nobody": (["--set", "edge.config=[edge.auth.jwt]\nleeway_secs = 5\n"], "edge.auth.existingSecret: name a Secret"),
    "screened by nobody": (
        [*AUTH, "--set", "contentSafety.enabled=false,edge.config=# policy = \"\"\n[edge.guard]\npolicy = \"strict\"\n"], 'policy = ""'),
    "a name twice": ([*AUTH, "--set", "chat.env[0].name=A,chat.env[1].name=A"], "chat.env: there is a name A already"),
    "a volume twice": ([*AUTH, "--set", "chat.volumes[0].name=models"], "chat.volumes: there is a name models already"),
    "a mount twice": (
        [*AUTH, "--set", "chat.volumeMounts[0].name=a,chat.volumeMounts[0].mountPath=/etc/koine"],
        "chat.volumeMounts: there is a mountPath /etc/koine already"),
    "nothing to roll": (
        [*AUTH, "--set", "defaults.strategy.rollingUpdate.maxSurge=0"], "chat.strategy.rollingUpdate: maxSurge and maxUnavailable"),
    "nothing to roll in percent": (
        [*AUTH, "--set", "edge.strategy.rollingUpdate.maxSurge=0%,edge.strategy.rollingUpdate.maxUnavailable=0%"], "edge.strategy"),
    "unknown strategy": ([*AUTH, "--set", "chat.strategy.type=BlueGreen"], "strategy"),
    "unknown word of a strategy": ([*AUTH, "--set", "chat.strategy.rollingUpdate.maxSurplus=1"], "maxSurplus"),
    "half a spread": ([*AUTH, "--set", "chat.topologySpread[0].topologyKey=a,chat.topologySpread[0].maxSkew=1"], "whenUnsatisfiable"),
    "onnx on a gpu without its library": (
        [*AUTH, "--set", "image.tag=1-cuda,embedding.gpu.count=1"], "name a build for CUDA in `library` under [embedding.runtime]"),
    "images on a gpu without its library": (
        [*AUTH, "--set", "image.tag=1-cuda,contentSafety.gpu.count=1"], "[content_safety.runtime] in contentSafety.config"),
    "a collector without its port": ([*AUTH, "--set", "telemetry.otlpEndpoint=http://collector-2"], "otlpEndpoint"),
    "an authority of no redis": ([*AUTH, "--set", "redis.ca.existingSecret=a"], "redis.ca.existingSecret: not used with redis.mode=none"),
    "a balancer that is not": ([*AUTH, "--set", "edge.service.loadBalancerClass=a"], "are for type LoadBalancer, not ClusterIP"),
    "a key nobody asks for": (["--set", "edge.auth.disabled=true,test.existingSecret=a"], "test.existingSecret: nobody is asked"),
    "a policy that is off": (
        [*AUTH, "--set", "networkPolicy.enabled=false,networkPolicy.clients[0].podSelector.matchLabels.a=b"], "closes nothing"),
    "a gpu without its image": ([*AUTH, "--set", "chat.gpu.count=1"], "chat.image.tag"),
    "two certificates": ([*AUTH, "--set", "edge.tls.existingSecret=a,edge.tls.certManager=true,certManager.issuerRef.name=b"],
                         "edge.tls: `existingSecret` and `certManager` contradict"),
    "two certificates within": (
        [*AUTH, "--set", "internal.tls.existingSecret=a,internal.tls.certManager=true,certManager.issuerRef.name=b"],
        "internal.tls: `existingSecret` and `certManager` contradict"),
    "no issuer": ([*AUTH, "--set", "edge.tls.certManager=true"], "certManager.issuerRef: needed for edge.tls.certManager=true"),
    "an issuer of nothing": ([*AUTH, "--set", "certManager.issuerRef.name=a"], "certManager.issuerRef: signs nothing"),
    "a name of nothing": ([*AUTH, "--set", "internal.tls.serverName=a"], "internal.tls.serverName: is of no certificate"),
    "tls twice": ([*AUTH, "--set", "edge.tls.existingSecret=a,edge.config=[edge.tls]"], "edge.config has a table [edge.tls]"),
    "a door twice": (
        [*AUTH, "--set", "internal.token.existingSecret=a,contentSafety.config=[content_safety.door]"],
        "contentSafety.config has a table [content_safety.door]"),
    "doors twice": ([*AUTH, "--set", "internal.tls.existingSecret=a,edge.config=[edge.doors.tls]"], "edge.config has a table [edge.doors]"),
    "a way without tls": (
        [*AUTH, "--set", "internal.tls.existingSecret=a,chat.enabled=false,edge.endpoints.chat[0]=http://chat.other:50051"],
        "begin it with https"),
    "a way with tls alone": (
        [*AUTH, "--set", "chat.enabled=false,edge.endpoints.chat[0]=https://chat.other:50051"], "needs internal.tls.existingSecret"),
    "a collector unknown": ([*AUTH, "--set", "telemetry.otlpEndpoint=https://collector:4317"], "telemetry.otlpCaFile: needed"),
    "an authority of nothing": ([*AUTH, "--set", "telemetry.otlpCaFile=/ca.crt"], "telemetry.otlpCaFile: is for"),
    "latest": ([*AUTH, "--set", "image.tag=latest"], "tag"),
    "latest redis": ([*AUTH, "--set", "redis.image=redis:latest"], "redis"),
    "unknown value": ([*AUTH, "--set", "chat.replicaz=3"], "replicaz"),
    "wrong type": ([*AUTH, "--set", "edge.drainSeconds=soon"], "drainSeconds"),
    "unknown mode": ([*AUTH, "--set", "chat.autoscaling.mode=magic"], "mode"),
    "old kubernetes": ([*AUTH, "--kube-version", "1.29.0"], "1.30"),
}


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
@pytest.mark.parametrize("what", WRONG)
def test_values_that_cannot_work_are_refused_with_the_reason(what, helm):
    words, reason = WRONG[what]
    done = template(*words, helm=helm)
    assert done.returncode != 0 and reason in done.stderr, done.stderr


RIGHT = {
    "policy in an inline table": {"edge": {"config": 'edge.guard = { policy = "" }'}, "contentSafety": {"enabled": False}},
    "policy in a variable": {"edge": {"env": [{"name": "EDGE__GUARD__POLICY", "value": ""}]}, "contentSafety": {"enabled": False}},
    "keys in a variable": {"edge": {"auth": {"existingSecret": ""}, "env": [
        {"name": "EDGE__AUTH__KEYS", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}},
    "tokens in an inline table": {"edge": {"auth": {"existingSecret": ""}, "config": '[edge]\nauth.jwt = { issuers = ["https://a"] }\n'}},
    "a file of keys": {"edge": {"auth": {"existingSecret": ""}, "config": '[edge.auth]\nkey_file = "/etc/koine-secrets/keys"\n'}},
    "a library in a variable": {"image": {"tag": "1-cuda"}, "embedding": {
        "gpu": {"count": 1}, "env": [{"name": "EMBEDDING__RUNTIME__LIBRARY", "value": "/opt/libonnxruntime.so"}]}},
}


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
@pytest.mark.parametrize("what", RIGHT)
def test_values_are_judged_by_what_the_service_reads_however_it_is_written(what, helm, tmp_path):
    rendered(tmp_path, RIGHT[what], helm)


def test_all_contradictions_are_told_at_once():
    done = template("--set", "redis.mode=external,gateway.enabled=true")
    assert "the values have 3 problem(s)" in done.stderr, done.stderr


def test_the_readme_is_made_of_the_values():
    assert readme.render() == (CHART / "README.md").read_text(), "tests/chart/readme.py writes it anew"


def test_every_default_is_allowed_by_the_schema_and_nothing_else_is():
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CHART / "values.yaml").read_text()), schema)

    def closed(node, path):
        if node.get("type") == "object" and "properties" in node:
            assert node.get("additionalProperties") is False, path
            for name, below in node["properties"].items():
                closed(below, f"{path}.{name}")

    closed(schema, "values")
    for name, node in schema["definitions"].items():
        closed(node, name)


def notes(tmp_path, *words, helm="helm4", release="koine"):
    """No helm renders notes without a cluster, so a copy of the chart renders them as an object."""
    chart = shutil.copytree(CHART, tmp_path / "koine", ignore=shutil.ignore_patterns("golden", "dashboards"), dirs_exist_ok=True)
    (chart / "templates/NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates/notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | quote }}\n')
    done = run(helm, "template", release, chart, "-n", render.NAMESPACE, *words, "--show-only", "templates/notes.yaml")
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["notes"].rstrip()


@cases
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_the_notes_end_in_a_curl_line(case, helm, tmp_path):
    text = notes(tmp_path, "-f", CASES[case], helm=helm)
    secure = case in ("tls", "cert-manager")
    asked = "curl -sk 'https://127.0.0.1:8080/chat" if secure else "curl -s 'http://127.0.0.1:8080/chat"
    assert asked in text and text.endswith("}'"), text
    values = yaml.safe_load(CASES[case].read_text())
    keyed = "existingSecret" in values["edge"].get("auth", {})
    assert keyed == ("get secret koine-keys" in text)
    assert ("Authorization: Bearer" in text) == (not values["edge"].get("auth", {}).get("disabled"))
    assert ("fetches the models" in text) == (values.get("models", {}).get("source", "pull") == "pull")


def test_the_notes_speak_of_what_is_installed(tmp_path):
    text = notes(tmp_path, *AUTH, "--set", "chat.enabled=false,internal.tls.existingSecret=a", release="prod")
    assert "/embeddings?" in text and "/chat/" not in text
    for component in ("edge", "embedding", "content-safety"):
        assert f"  prod-koine-{component}.inference.svc\n" in text
    assert "prod-koine-chat" not in text


def test_the_test_pod_s_program_judges_a_server(tmp_path):
    """The program of `helm test` against a server that answers as the edge does, and against ones that do not."""
    import http.server
    import sys
    import threading

    class Edge(http.server.BaseHTTPRequestHandler):
        strict = True
        routes = ["/chat/completions", "/embeddings"]
        broken = ()

        def do_GET(self):
            self.answer({"data": [{"id": "m", "routes": self.routes}]})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert asked["model"] == "m"
            if self.path == "/v1/chat/completions":
                assert asked["max_tokens"] == 1 and asked["messages"]
                self.answer({"usage": {"completion_tokens": 1}})
            else:
                assert self.path == "/v1/embeddings" and asked["input"]
                self.answer({"data": [{"embedding": [0.5, 0.5]}]})

        def answer(self, good):
            allowed = not self.strict or self.headers.get("authorization") == "Bearer k2"
            status = 401 if not allowed else 503 if self.path in self.broken else 200
            body = json.dumps(good if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    def outcome(env, **different):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Server", (Edge,), different))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        env = {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OPEN": "false", "CHAT": "true", "EMBEDDING": "true", **env}
        done = run(sys.executable, CHART / "files/test-api.py", env=env)
        server.shutdown()
        server.server_close()
        return done.returncode, done.stdout + done.stderr

    keyed = {"KEYS": "# keys\n\nk2\n"}
    whole = "models: m\nchat: m wrote 1 token\nembeddings: m made 2 numbers\nok\n"
    assert outcome(keyed) == (0, whole)
    assert outcome({"OPEN": "true"}, strict=False) == (0, whole)
    assert outcome(keyed | {"CHAT": "false"}) == (0, "models: m\nembeddings: m made 2 numbers\nok\n")
    assert outcome({"KEYS": '[[keys]]\nname = "a"\n'})[0] == 0
    assert outcome({"KEYS": "wrong\n"})[0] == 1
    assert "without a key" in outcome(keyed, strict=False)[1]
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        code, text = outcome(keyed, broken=(path,))
        assert code == 1 and f"{path} answered 503" in text
    assert "no model is for chat" in outcome(keyed, routes=["/embeddings"])[1]
    assert "no model makes vectors" in outcome(keyed, routes=["/chat/completions"])[1]


def test_the_test_pod_s_program_is_content_with_a_real_server():
    """The four services in one process, with the default models."""
    import subprocess
    import sys

    env = {"PATH": "/nowhere", "STANDALONE__SERVICE__LISTEN": "127.0.0.1:0", "STANDALONE__SERVICE__ADMIN_LISTEN": "",
           "EDGE__AUTH__KEYS": '["a-key"]', "STANDALONE__MODELS__OFFLINE": "true"}
    process = subprocess.Popen([BINARIES / "koine", "up"], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        endpoint = next(m[1] for line in process.stdout if (m := re.match(r"curl -s '(http://[^/]+)/", line)))
        asked = {"ENDPOINT": endpoint, "OPEN": "false", "KEYS": "a-key\n", "CHAT": "true", "EMBEDDING": "true"}
        done = run(sys.executable, CHART / "files/test-api.py", env=asked)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "wrote 1 token\n" in done.stdout and "made 384 numbers\nok\n" in done.stdout
        refused = run(sys.executable, CHART / "files/test-api.py", env=asked | {"KEYS": "another\n"})
        assert refused.returncode == 1 and "answered 401" in refused.stderr
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_the_test_pod_shows_a_key_of_its_own_where_it_is_named():
    (pod,) = of_kind("overrides", "Pod")
    env = {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][0]["env"]}
    assert env["KEYS"] == {"secretKeyRef": {"name": "koine-test", "key": "key"}} and env["CHAT"] == env["EMBEDDING"] == "true"
