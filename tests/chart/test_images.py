"""The Dockerfile without a container engine: a linter reads it, and each binary runs in a directory that holds just the files
that its image has, as a user who may write nothing.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import PurePath

import pytest
import yaml
from tools import BINARIES, ROOT, run

DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
TEXT = DOCKERFILE.read_text()
OURS = ("edge", "chat", "embedding", "content-safety")
# Libraries of gcr.io/distroless/cc-debian12: glibc, libgcc, libgomp, libstdc++, and nothing else.
IN_BASE = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libgomp.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2",
           "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# The edge stands on base-nossl-debian12, which has glibc alone, and brings libgcc along.
IN_EDGE_BASE = IN_BASE - {"libgcc_s.so.1", "libgomp.so.1", "libstdc++.so.6"}
EDGE_BRINGS = "libgcc_s.so.1"
# What that base weighs, unpacked: Debian's libc6 (13 MB), tzdata (3 MB), certificates, netbase, base-files.
EDGE_BASE_BYTES = 18 * 1024 * 1024
LARGEST_EDGE = 40 * 1024 * 1024
READY_WITHIN = 60
USER = 65532


def stages():
    """Each stage with the stage or image that it stands on, and its instructions."""
    found = {}
    for base, name, body in re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL):
        body = re.sub(r"^#.*\n", "", body, flags=re.MULTILINE).replace("\\\n", " ")
        found[name] = (base, [line for line in body.splitlines() if line.strip()])
    return found


def whole(name):
    """The instructions of a stage with those it inherits."""
    base, lines = stages()[name]
    return (whole(base) if base in stages() else []) + lines


def last(name, instruction):
    said = [line.split(" ", 1)[1] for line in whole(name) if line.startswith(instruction + " ")]
    return said[-1] if said else None


def test_the_linter_has_nothing_to_say():
    done = run("hadolint", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_no_architecture_is_written_down():
    """Every stage builds on arm64 too; what has an architecture in its name is asked for."""
    assert not re.search(r"x86.64|amd64|aarch64|arm64", "".join(line for _, lines in stages().values() for line in lines))


@pytest.mark.parametrize("target", [*OURS, "koine", "models"])
def test_every_image_names_user_labels_entry_and_what_it_is_made_of(target):
    assert last(target, "USER") == f"{USER}:{USER}"
    assert json.loads(last(target, "ENTRYPOINT"))[0].startswith("/usr/local/bin/")
    labels = " ".join(line for line in whole(target) if line.startswith("LABEL"))
    for label in ("title", "description", "licenses", "documentation", "vendor"):
        assert f"org.opencontainers.image.{label}=" in labels
    for label in ("version", "revision", "source"):
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in labels
        assert re.search(rf"^ARG (\w+ )*{label.upper()}\b", "\n".join(whole(target)), re.MULTILINE), "else it is empty"
    assert any(line.startswith("COPY --from=build-") and line.endswith("/usr/share/doc/koine") for line in whole(target))


@pytest.mark.parametrize("target", OURS)
def test_an_image_copies_one_binary_of_its_own_and_asks_it_for_its_health(target):
    copies = [line.split()[1:] for line in whole(target) if line.startswith("COPY")]
    if target == "edge":
        # /usr/lib is where the loader looks on every architecture.
        assert copies.pop(0) == ["--from=build-edge", f"/out/{EDGE_BRINGS}", f"/usr/lib/{EDGE_BRINGS}"]
        assert f'cp "/lib/$(uname -m)-linux-gnu/{EDGE_BRINGS}" /out/' in "\n".join(stages()["build-edge"][1])
    assert copies == [
        [f"--from=build-{target}", "/out/doc", "/usr/share/doc/koine"],
        [f"--from=build-{target}", "/out/service", "/usr/local/bin/service"],
    ]
    assert 'CMD ["/usr/local/bin/service", "healthcheck"]' in last(target, "HEALTHCHECK")
    build = "\n".join(stages()[f"build-{target}"][1])
    assert f"--locked -p {target} " in build and f"target/dist/{target} /out/service" in build
    # Dependencies first, in a layer that the source does not touch.
    assert build.index("cargo chef cook") < build.index("COPY . .") < build.index("cargo build")


def test_everything_that_the_build_copies_or_runs_is_here():
    assert (ROOT / "LICENSE").exists() and (ROOT / ".cargo").is_dir()
    assert os.access(ROOT / "deploy/supply/notices.py", os.X_OK)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"target", "models", ".git", ".venv", ".cache", ".env"} <= set(ignored)
    channel = re.search(r'channel = "([^"]+)"', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"RUSTUP_TOOLCHAIN={channel}" in TEXT and f"rust:{channel}-" in TEXT


def test_nothing_that_a_build_reads_is_kept_from_it():
    """.dockerignore leaves out pages, the chart and golden answers: a change of those builds nothing anew."""
    patterns = (ROOT / ".dockerignore").read_text().split()

    def ignored(path):
        inside = PurePath("/") / path.relative_to(ROOT)
        fits = [p for p in patterns if any(part.match(f"/{p.lstrip('!')}") for part in (inside, *inside.parents))]
        # The last one that fits decides.
        return bool(fits) and not fits[-1].startswith("!")

    assert ignored(ROOT / "docs/install.md") and ignored(ROOT / "README.md") and ignored(ROOT / "tests/golden/chat/request.json")
    assert not ignored(ROOT / "crates/model-store/data/README.md")
    needed = {ROOT / "Cargo.lock", ROOT / "LICENSE", ROOT / ".cargo/config.toml", ROOT / "deploy/supply/notices.py"}
    needed |= {file for file in (ROOT / "proto").rglob("*") if file.is_file()}
    for manifest in (ROOT / "Cargo.toml", *(ROOT / "crates").glob("*/Cargo.toml"), ROOT / "tests/Cargo.toml",
                     *(ROOT / "examples").glob("*/Cargo.toml")):
        needed.add(manifest)
        named = re.findall(r'^(?:readme|path) = "([^"]+)"', manifest.read_text(), re.MULTILINE)
        needed |= {manifest.parent / path for path in named}
    for source in (ROOT / "crates").rglob("*.rs"):
        needed.add(source)
        included = re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text())
        needed |= {(source.parent / path).resolve() for path in included}
    for file in needed:
        assert file.exists() and not ignored(file), file


# --------------------------------------------------------------------------------------------------- make images


def made(*words):
    """What `make images` would do: for each image its name and the words of its build, and what is pushed."""
    said = run(shutil.which("make"), "-n", "-C", ROOT, *words).stdout.replace("\\\n", " ")
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("docker ")]
    builds = {c[c.index("-t") + 1]: c for c in commands if c[1] == "build"}
    return builds, [c[2] for c in commands if c[1] == "push"]


def test_one_command_builds_every_image_and_pushes_none():
    builds, pushed = made("images")
    assert list(builds) == [f"koine/{name}:dev" for name in (*OURS, "koine", "models")] and not pushed
    for name, words in builds.items():
        assert words[words.index("--target") + 1] == re.match("koine/(.*):", name)[1]
        given = {words[at + 1].split("=")[0] for at, word in enumerate(words) if word == "--build-arg"}
        assert given == {"VERSION", "REVISION", "SOURCE_DATE_EPOCH"}
        assert all(re.search(rf"^ARG (\w+ )*{arg}\b", TEXT, re.MULTILINE) for arg in given)


def test_images_go_where_and_under_the_tag_that_is_said():
    builds, pushed = made("images", "REPOSITORY=registry.example.com/koine", "TAG=0.1.0", "PUSH=1")
    assert list(builds) == pushed == [f"registry.example.com/koine/{name}:0.1.0" for name in (*OURS, "koine", "models")]
    assert "VERSION=0.1.0" in builds["registry.example.com/koine/edge:0.1.0"]


def test_with_weights_every_image_has_one_tag_and_those_that_serve_models_hold_them():
    builds, _ = made("images", "TAG=0.1.0", "WEIGHTS=1")
    assert list(builds) == [f"koine/{name}:0.1.0-weights" for name in (*OURS, "koine", "models")]
    targets = [words[words.index("--target") + 1] for words in builds.values()]
    assert targets == ["edge", "chat-weights", "embedding-weights", "content-safety-weights", "koine", "models"]


def test_for_gpus_the_tag_says_so_and_bases_are_handed_on():
    (name, words), = made("image-chat", "TAG=0.1.0", "FEATURES=cuda", "BUILD_IMAGE=b:1", "RUN_IMAGE=r:2", "WEIGHTS=1",
                          "CHAT_WEIGHTS=one two")[0].items()
    assert name == "koine/chat:0.1.0-weights-cuda"
    assert {"FEATURES=cuda", "BUILD_IMAGE=b:1", "RUN_IMAGE=r:2", "CHAT_WEIGHTS=one two"} <= set(words)


@pytest.mark.parametrize("service", OURS[1:])
def test_an_image_with_weights_holds_what_the_chart_would_fetch(service):
    values = yaml.safe_load((ROOT / "helm/koine/values.yaml").read_text())
    key = {"content-safety": "contentSafety"}.get(service, service)
    weights = f"weights-{service}"
    assert stages()[weights][0] == "koine" and stages()[f"{service}-weights"][0] == service
    argument = f"{service.upper().replace('-', '_')}_WEIGHTS"
    said = "\n".join(stages()[weights][1])
    assert re.search(rf'^ARG {argument}="(.*)"$', said, re.MULTILINE)[1].split() == values[key]["models"]["pull"]
    assert f"RUN koine models pull ${{{argument}}}" in said
    # What the tool wrote belongs to its user, who is the service's too.
    assert stages()[f"{service}-weights"][1] == [f"COPY --from={weights} --chown={USER}:{USER} /models /models"]


def test_every_image_exposes_the_ports_that_it_has():
    facts = run("helm4", "template", "koine", ROOT / "helm/koine", "--set", "edge.auth.existingSecret=k")
    for pod in (o for o in yaml.safe_load_all(facts.stdout) if o and o["kind"] == "Deployment"):
        (container,) = pod["spec"]["template"]["spec"]["containers"]
        name = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        assert last(name, "EXPOSE").split() == [str(port["containerPort"]) for port in container["ports"]], name
    assert last("koine", "EXPOSE") == last("edge", "EXPOSE")


# ------------------------------------------------------------------------------------------------- what they hold


def libraries(binary):
    """What the loader would open: name and path."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    assert "not found" not in listed
    return {os.path.basename(path): path for path in re.findall(r"(/\S+) \(0x", listed)}


def loaded():
    """Everything that is linked or opened at run time: our binaries, and the ONNX Runtime of the model volume."""
    return [*(BINARIES / service for service in OURS), *(ROOT / "models/onnxruntime").glob("libonnxruntime.so*[0-9]")]


def test_nothing_needs_a_library_that_the_base_lacks():
    assert len(loaded()) == len(OURS) + 1
    for file in loaded():
        assert set(libraries(file)) <= IN_BASE, file


def base():
    """The libraries of the base that anything here needs, as this machine has them."""
    return {path for file in loaded() for path in libraries(file).values()}


def test_the_edge_knows_neither_engine_and_its_image_is_small(tmp_path):
    small = tmp_path / "edge"
    subprocess.run(["strip", "-s", "-o", small, BINARIES / "edge"], check=True)
    needed = libraries(BINARIES / "edge")
    assert set(needed) <= IN_EDGE_BASE | {EDGE_BRINGS}
    brought = os.stat(needed[EDGE_BRINGS]).st_size
    assert small.stat().st_size + brought + EDGE_BASE_BYTES < LARGEST_EDGE
    content = small.read_bytes()
    for engine in (b"llama_model_load", b"OrtGetApiBase", b"GOMP_parallel"):
        assert engine not in content


@pytest.fixture
def root(tmp_path):
    """A function that lays out an image's root file system; only root may write in it."""

    def lay(service, with_models):
        root = tmp_path / "root"
        place(BINARIES / service, root / "usr/local/bin/service")
        for path in base():
            # As the edge's image does it: one library is not where the machine has it.
            path_there = f"/usr/lib/{EDGE_BRINGS}" if (service, os.path.basename(path)) == ("edge", EDGE_BRINGS) else path
            place(path, root / path_there.lstrip("/"))
        (root / "models").mkdir()
        if with_models:
            for file in (ROOT / "models").resolve().rglob("*"):
                if file.is_file():
                    place(file, root / "models" / file.relative_to((ROOT / "models").resolve()))
        for folder, _, _ in os.walk(root):
            os.chmod(folder, 0o555)
        return root

    yield lay
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o755)
    shutil.rmtree(tmp_path)


def place(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    source = os.path.realpath(source)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def confined(root):
    """The words in front of a command that see `root` alone: as nobody where this is root, else in a namespace of its own."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    chroot, unshare = shutil.which("chroot", path=path), shutil.which("unshare", path=path)
    if os.geteuid() == 0:
        return [chroot, f"--userspec={USER}:{USER}", str(root)]
    return [unshare, "--user", "--map-root-user", chroot, str(root)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def said(target):
    """The variables that an image sets."""
    words = [word for line in whole(target) if line.startswith("ENV ") for word in line.split()[1:]]
    return dict(word.split("=", 1) for word in words)


def environment(service):
    """What the image and a minimal deployment set, with free ports; services the edge leads to are not there."""
    prefix, port, admin = service.upper().replace("-", "_"), free_port(), free_port()
    env = {
        **said(service),
        f"{prefix}__SERVICE__LISTEN": f"127.0.0.1:{port}",
        f"{prefix}__SERVICE__ADMIN_LISTEN": f"127.0.0.1:{admin}",
    }
    if service == "edge":
        return env | {"EDGE__AUTH__KEYS": '["k"]'}, port, admin
    return env | {f"{prefix}__MODELS__DIR": "/models", f"{prefix}__MODELS__OFFLINE": "true"}, port, admin


def answers(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def until(condition, process):
    deadline = time.monotonic() + READY_WITHIN
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "not in time"


@pytest.mark.parametrize("service", OURS)
def test_the_files_of_an_image_suffice_to_run_and_to_stop(service, root):
    env, port, admin = environment(service)
    front = [*confined(root(service, with_models=service != "edge")), "/usr/local/bin/service"]
    assert subprocess.run([*front, "--version"], env=env, capture_output=True, text=True, check=True).stdout.startswith(
        service.replace("-", "_"))
    process = subprocess.Popen(front, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        # A model service is ready with its models loaded; an edge without services is alive and asks for keys, and not ready.
        until(lambda: answers(admin, "/livez") == 200, process)
        if service == "edge":
            until(lambda: answers(port, "/v1/models") == 401, process)
        else:
            until(lambda: answers(admin, "/readyz") == 200, process)
        health = subprocess.run([*front, "healthcheck"], env=env, capture_output=True)
        assert health.returncode == (1 if service == "edge" else 0)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=READY_WITHIN)
    assert process.returncode == 0, log


def own(volume):
    """As a volume is: the user's."""
    for folder, _, _ in os.walk(volume):
        os.chmod(folder, 0o755)
        if os.geteuid() == 0:
            os.chown(folder, USER, USER)


def test_the_image_of_all_four_serves_beyond_its_container_with_the_variables_of_the_readme(root):
    command = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("docker run "))
    words = shlex.split(command)
    assert words[-1].startswith("koine/koine:")
    assert words[words.index("-v") + 1].split(":")[1] == said("koine")["STANDALONE__MODELS__DIR"]
    host, there = words[words.index("-p") + 1].rsplit(":", 1)
    assert host.startswith("127.0.0.1:") and there in last("koine", "EXPOSE").split()
    assert said("koine")["STANDALONE__SERVICE__LISTEN"] == f"0.0.0.0:{there}"
    given = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-e")

    image = root("koine", with_models=True)
    own(image / "models")
    front = [*confined(image), "/usr/local/bin/service", *json.loads(last("koine", "CMD"))]
    port, admin = free_port(), free_port()
    env = said("koine") | {"STANDALONE__SERVICE__LISTEN": f"0.0.0.0:{port}"}
    env |= {"STANDALONE__SERVICE__ADMIN_LISTEN": f"127.0.0.1:{admin}"}
    refused = subprocess.run(front, env=env, capture_output=True, text=True, timeout=READY_WITHIN)
    assert refused.returncode != 0 and "edge.auth" in refused.stderr, "without a key it says what is missing"
    process = subprocess.Popen(front, env=env | given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: answers(admin, "/readyz") == 200, process)
        assert answers(port, "/v1/models") == 401
    finally:
        process.terminate()
        _, log = process.communicate(timeout=READY_WITHIN)
    assert process.returncode == 0, log


def test_the_models_image_finds_a_full_volume_complete_without_python_or_a_network(root):
    """As compose runs it at every start: nobody, a root file system that is read-only, and a volume that is its own."""
    image = root("koine", with_models=True)
    volume = image / "models"
    own(volume)
    assert last("models", "CMD") == '["models", "pull"]'
    words = [*confined(image), "/usr/local/bin/service", *json.loads(last("models", "CMD"))]
    env = said("models") | {"HOME": "/tmp", "PATH": "/nowhere"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=READY_WITHIN)
    assert (done.returncode, done.stdout) == (0, "models are complete in /models\n"), done.stderr
