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


def allowed_ports(component, case):
    policy = next(p for p in of_kind(case, "NetworkPolicy") if p["metadata"]["labels"]["app.kubernetes.io/component"] == component)
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


def test_what_the_values_lead_to_is_what_the_policies_let_through():
    assert allowed_ports("edge", "default") == {53, 50051, 50052, 50053}
    assert allowed_ports("edge", "ha") == {53, 50051, 50052, 50053, 6379}
    assert allowed_ports("edge", "keda-gateway") == {53, 50051, 50052, 50053, 6379, 4317}
    assert allowed_ports("chat", "default") == {53, 443}
    # No weights are fetched: a server upstream and the collector are all that is left.
    assert allowed_ports("chat", "keda-gateway") == {53, 4317, 8000}
    assert allowed_ports("chat", "gpu") == {53}


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


def test_secrets_are_named_and_never_made():
    for case in CASES:
        assert of_kind(case, "Secret") == []


def resolved(entry, folder):
    """A variable's value; what the cluster would fill in is made up, and files of Secrets are put into `folder`."""
    source = entry.get("valueFrom", {})
    if "resourceFieldRef" in source:
        return "2"
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
    "a closed way": ([*AUTH, "--set", "chat.enabled=false,edge.endpoints.chat[0]=http://chat.other:50051"], "edge.egress"),
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


@cases
@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_the_notes_end_in_a_curl_line(case, helm, tmp_path):
    """No helm renders notes without a cluster, so a copy of the chart renders them as an object."""
    chart = shutil.copytree(CHART, tmp_path / "koine", ignore=shutil.ignore_patterns("golden", "dashboards"))
    (chart / "templates/NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates/notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes.txt") . | quote }}\n')
    done = run(helm, "template", "koine", chart, "-n", render.NAMESPACE, "-f", CASES[case], "--show-only", "templates/notes.yaml")
    assert done.returncode == 0, done.stderr
    notes = yaml.safe_load(done.stdout)["notes"].rstrip()
    secure = case in ("tls", "cert-manager")
    asked = "curl -sk 'https://127.0.0.1:8080/chat" if secure else "curl -s 'http://127.0.0.1:8080/chat"
    assert asked in notes and notes.endswith("}'"), notes
    keyed = "existingSecret" in yaml.safe_load(CASES[case].read_text())["edge"]["auth"]
    assert keyed == ("get secret koine-keys" in notes) == ("Authorization: Bearer" in notes)


def test_the_test_pod_s_program_judges_a_server(tmp_path):
    """The program of `helm test` against a server that answers as the edge does, and against one that lets everybody in."""
    import http.server
    import sys
    import threading

    class Edge(http.server.BaseHTTPRequestHandler):
        strict = True

        def do_GET(self):
            allowed = not self.strict or self.headers.get("api-key") == "k2"
            body = json.dumps({"data": [{"id": "m"}]} if allowed else {"error": {}}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    class Careless(Edge):
        strict = False

    def outcome(server_class, **env):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), server_class)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        env = {"ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OPEN": "false", **env}
        done = run(sys.executable, CHART / "files/test-api.py", env=env)
        server.shutdown()
        server.server_close()
        return done.returncode, done.stdout + done.stderr

    assert outcome(Edge, KEYS="# keys\n\nk2\n") == (0, "models: m\nok\n")
    assert outcome(Edge, KEYS='[[keys]]\nname = "a"\n') == (0, "ok\n")
    assert outcome(Edge, KEYS="wrong\n")[0] == 1
    assert "without a key" in outcome(Careless, KEYS="k2")[1]
    assert outcome(Careless, OPEN="true") == (0, "models: m\nok\n")
