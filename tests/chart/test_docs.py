"""What the docs name exists: links, files, options, variables, values, commands; and what they show as a file is taken.

Names are looked up where they come from: options in the commented config.toml files, values in the chart, words of commands in
the programs themselves. A block of TOML is given to `koine config check`, one of values to helm.
"""

import datetime
import functools
import json
import re
import shlex
import shutil
import tomllib

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from render import CHART
from tools import BINARIES, ROOT, run

PAGES = sorted(
    page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), CHART / "README.md") if page.name != "compatibility.md"
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
# What the docs tell an operator: these are read word by word, all but those that programs write, and the runbook of the alerts.
UNREAD = ("chaos", "compatibility", "runbook")
GUIDES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem not in UNREAD)]
guides = pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.name)
SECTIONS = ("edge", "chat", "embedding", "content_safety", "standalone")
SERVICES = ("edge", "chat", "embedding", "content-safety")
KUBECTL = {"get", "logs", "describe", "create", "apply", "delete", "top", "rollout", "port-forward", "scale"}
# Tables whose keys are names that an operator gives.
NAMED = ("content_safety.policies.", "edge.auth.jwt.required.")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page):
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# --------------------------------------------------------------------------------------------------------- links


@pages
def test_every_link_leads_somewhere(page):
    for text, target in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"https?://", target):
            continue
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"[{text}]({target})"
        if anchor and file.suffix == ".md":
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)}, target


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\((docs/\w+\.md)", (ROOT / "README.md").read_text()))
    assert linked >= {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}


@pages
def test_every_file_that_is_named_is_there(page):
    roots = ("crates", "tests", "deploy", "docs", "helm", "proto", "examples")
    for named in re.findall(rf"`((?:{'|'.join(roots)})/[\w./*-]+)`", prose(page)):
        assert list(ROOT.glob(named.rstrip("/"))), named


# ------------------------------------------------------------------------------------------------- options, values


@functools.cache
def options():
    """Every option by its full name. Those in comments count under the table that a comment named last, or else the real one."""
    found = set()
    for file in (ROOT / "crates").glob("*/config.toml"):
        real = table = ""
        for line in file.read_text().splitlines():
            bare = line.lstrip("# ")
            if match := re.match(r"^\[\[?([\w.]+)\]\]?(?:\s|$)", bare):
                table = match[1]
                real = real if line.startswith("#") else table
                parts = table.split(".")
                found |= {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
            elif match := re.match(r"^(\w+) = ", bare):
                found.add(f"{table if line.startswith('#') else real}.{match[1]}")
    assert len(found) > 150
    return found


@functools.cache
def values():
    """Every value by its full name; what `defaults` has, each service has."""
    chart, found = yaml.safe_load((CHART / "values.yaml").read_text()), set()

    def walk(node, path):
        found.add(path)
        for key, below in node.items() if isinstance(node, dict) else ():
            walk(below, f"{path}.{key}" if path else key)

    walk(chart, "")
    for service in ("edge", "chat", "embedding", "contentSafety"):
        walk(chart["defaults"], service)
    return found


@guides
def test_every_option_and_value_that_is_named_is_one(page):
    heads = {*SECTIONS, *yaml.safe_load((CHART / "values.yaml").read_text())}
    files = {".md", ".toml", ".yaml", ".yml", ".py", ".rs", ".proto", ".json", ".sh", ".txt"}
    checked = 0
    for name in re.findall(r"`([a-z]\w*(?:\.\w+)+)(?:=[^`]*)?`", prose(page)):
        if name.split(".")[0] in heads and not any(name.endswith(ending) for ending in files):
            checked += 1
            assert name in options() or name in values() or name.startswith(NAMED), name
    for table in re.findall(r"`\[\[?(\w+(?:\.\w+)*)\]\]?`", prose(page)):
        assert table in options(), table
    assert checked or page.name in ("README.md", "migrate.md", "release.md", "safety.md", "figures.md")


@guides
def test_every_variable_that_is_named_is_an_option(page):
    for name in re.findall(r"\b((?:EDGE|CHAT|EMBEDDING|CONTENT_SAFETY|STANDALONE)(?:__[A-Z]+(?:_[A-Z]+)*)+)", page.read_text()):
        assert name.lower().replace("__", ".") in options(), name


@guides
def test_every_file_of_options_is_taken(page, tmp_path, certificates):
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        # What a gateway, a Secret or the platform would bring.
        text = re.sub(r'"(/run/secrets/\w+|keys\.toml)"', f'"{key_file(tmp_path)}"', text)
        text = re.sub(r'"/etc/koine-(?:tls|secrets)/([\w.]+)"', lambda m: f'"{certificates / m[1]}"', text)
        file.write_text(text)
        done = run(BINARIES / "koine", "config", "check", "--config", file)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with what cert-manager would mount, and a token."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "koine-services")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    for file in ("tls.crt", "ca.crt"):
        (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(key.private_bytes(*form))
    (folder / "token").write_text("a-token-of-the-tests-that-is-long-enough\n")
    return folder


def key_file(folder):
    file = folder / "keys.toml"
    file.write_text(f'[[keys]]\nname = "a"\nsha256 = "{64 * "0"}"\n')
    return file


@guides
def test_every_file_of_values_is_taken_and_so_is_the_config_in_it(page, tmp_path):
    for number, text in enumerate(blocks(page, "yaml")):
        assert text.startswith("# values.yaml\n"), text
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        done = run("helm4", "template", "koine", CHART, "-f", file, "--set", "edge.auth.existingSecret=koine-keys")
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        for service in yaml.safe_load(text).values():
            if isinstance(service, dict) and "config" in service:
                (tmp_path / "koine.toml").write_text(service["config"])
                check = run(BINARIES / "koine", "config", "check", "--config", tmp_path / "koine.toml")
                assert check.returncode == 0, check.stderr


# ------------------------------------------------------------------------------------------- metrics and dashboards


def test_every_metric_that_is_named_is_measured():
    source = "".join(file.read_text() for file in (ROOT / "crates").glob("*/src/**/*.rs"))
    checked = 0
    for page in (*GUIDES, ROOT / "docs/runbook.md"):
        for name in re.findall(r"`((?:edge|chat|embedding|content_safety|onnx|client)_\w+)(?:\{[^}`]*\})?`", prose(page)):
            if name not in SECTIONS:
                checked += 1
                assert f'"{name}"' in source, f"{page.name}: {name}"
    assert checked >= 4


def test_every_dashboard_and_panel_that_an_operator_is_sent_to_is_there():
    boards = [json.loads(file.read_text()) for file in (CHART / "files/dashboards").glob("*.json")]
    titles, panels = {b["title"] for b in boards}, {p["title"] for b in boards for p in b["panels"]}
    text = (ROOT / "docs/operate.md").read_text()
    assert set(re.findall(r"\*\*(Koine: [^*]+)\*\*", text)) <= titles
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", prose(ROOT / "docs/operate.md")))
    assert len(named) >= 5 and named <= panels, named - panels


@pytest.mark.parametrize("page", ["README.md", "docs/scale.md"])
def test_figures_are_those_of_the_one_table(page):
    """`make bench` fills one table; the others must not remember older figures."""
    figures = dict(re.findall(r"^\| (.*?) \| (.*?) \|", (ROOT / "docs/figures.md").read_text(), re.MULTILINE))
    table = (ROOT / page).read_text().split("| | measured |\n| --- | --- |\n")[1].split("\n\n")[0]
    for row in table.splitlines():
        what, measured = (cell.strip() for cell in row.strip("|").split("|"))
        whole = next((key for key in figures if key == what or key.startswith(f"{what},")), None)
        assert whole and figures[whole] == measured, row


def test_the_onnx_runtime_for_gpus_is_the_version_of_the_catalog():
    catalog = tomllib.loads((ROOT / "crates/model-store/catalog.toml").read_text())
    (version,) = (model["version"] for model in catalog["model"] if model["name"] == "onnxruntime")
    guide = (ROOT / "docs/scale.md").read_text()
    for said in (r"onnxruntime-gpu\[[^]]*\]==([\d.]+)", r"libonnxruntime\.so\.([\d.]+)"):
        assert re.findall(said, guide) == [version]


# ------------------------------------------------------------------------------------------------------- commands


def commands(page):
    """Each simple command of the page's shell blocks as its words, without variables in front of it."""
    for block in blocks(page, "bash"):
        text = re.sub(r"^\s*#.*$", "", block.replace("\\\n", " "), flags=re.MULTILINE)
        for line in text.splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
            lexer.whitespace_split = True
            words = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|&;"):
                    yield from [words] if words else []
                    words = []
                elif words or not re.match(r"^\w+=", word):
                    words.append(word)


@functools.cache
def subcommands(*words):
    """What `koine WORDS --help` lists."""
    shown = run(BINARIES / "koine", *words, "--help").stdout
    listed = re.search(r"^Commands:\n(.*?)\n\n", shown, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^  ([a-z]+)", listed[1], re.MULTILINE)) if listed else set()


def check_koine(words):
    words = [w for w in words if w != ">>"]
    if "--config" in words:
        at = words.index("--config")
        words = words[:at] + words[at + 2 :]
    assert words[1] in subcommands(), words
    if nested := subcommands(words[1]):
        assert words[2] in nested, words


def check_service(words):
    shown = run(BINARIES / words[0].split("/")[-1], "--help").stdout
    for word in words[1:]:
        assert word in shown or word.endswith(".toml"), words


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for variable in (word.split("=")[0] for word in words[1:] if "=" in word):
        assert re.search(rf"\$\({variable}\)|^IMAGE_ARGS :=.*\b{variable}\b", makefile, re.MULTILINE), words
    # `make` itself knows its targets, those of patterns too; nothing is run.
    done = run(shutil.which("make"), "-n", "-C", ROOT, *words[1:])
    assert done.returncode == 0, done.stderr


def check_helm(words):
    assert words[1] in {"install", "upgrade", "test", "rollback", "package"}, words
    for at, word in enumerate(words):
        if word.startswith("--set"):
            for pair in words[at + 1].split(","):
                assert pair.split("=")[0] in values(), pair
        elif word.startswith("-") and word not in ("-f",):
            assert word in run("helm4", words[1], "--help").stdout.split(), words
        elif "/" in word and not re.match(r"^\w+\.", word):
            assert (ROOT / word).exists() or "=" in word, word


def check_compose(words):
    text = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    profiles = {p for service in text["services"].values() for p in service.get("profiles", ())}
    if "--profile" in words:
        assert words[words.index("--profile") + 1] in profiles, words
    rest = [w for w in words[2:] if w not in (*profiles, "--profile", "never")]
    shown = run("docker-compose", rest[0], "--help").stdout
    assert f"docker compose {rest[0]}" in shown, words
    for word in rest[1:]:
        if word.startswith("--"):
            assert word in shown, words
        else:
            assert word.split("=")[0] in text["services"], words


def check_kubectl(words):
    assert words[1] in KUBECTL, words


def mounted_keys(page):
    """For each Secret of keys that a page makes: the names that it has, and the one that the chart is told to mount.

    A block without helm changes the Secret of a release that was told the name before; the text must say which.
    """
    for block in blocks(page, "bash"):
        lines = block.replace("\\\n", " ").splitlines()
        for line in lines:
            if match := re.search(r"kubectl create secret generic (\S+) (.*)", line):
                given = re.findall(r"--from-(?:file|literal)=(?:([\w.-]+)=\S+|(\S+))", match[2])
                made = {name or file.split("/")[-1] for name, file in given}
                helm = [other for other in lines if other.startswith("helm ")]
                names = [m for other in helm for m in re.findall(r"--set edge\.auth\.key=(\S+)", other)]
                default = yaml.safe_load((CHART / "values.yaml").read_text())["edge"]["auth"]["key"]
                yield made, names[0] if names else default if helm else None


@guides
def test_a_secret_of_keys_has_the_name_that_the_chart_mounts(page):
    """The chart mounts one key of the Secret, so a file under another name would have no effect."""
    text = page.read_text()
    for made, mounted in mounted_keys(page):
        if mounted is None:
            (name,) = made
            assert f"With `{name}`" in text and "`edge.auth.key`" in text, f"{page.name}: which release mounts {name}?"
        else:
            assert mounted in made, f"{page.name}: {made} without {mounted}"


CHECKS = {"koine": check_koine, "make": check_make, "helm": check_helm, "kubectl": check_kubectl, **dict.fromkeys(SERVICES, check_service)}


@guides
def test_every_command_is_one(page):
    for words in commands(page):
        program = words[0].split("/")[-1]
        if words[:2] == ["docker", "compose"]:
            check_compose(words)
        elif program in CHECKS:
            assert "/" not in words[0] or words[0] == f"target/release/{program}", words
            CHECKS[program](words)
        elif "/" in words[0]:
            assert (ROOT / words[0]).exists(), words


def test_the_checks_find_what_is_wrong(tmp_path, certificates):
    """Each of them with a word that does not exist."""
    page = tmp_path / "page.md"
    page.write_text("```bash\nFOO=1 koine model list | head\nmake it\nhelm upgrade koine helm/koine --set chat.replicaz=2\n```\n")
    for words in commands(page):
        if words[0] in CHECKS:
            with pytest.raises(AssertionError):
                CHECKS[words[0]](words)
    for words in (["docker", "compose", "--profile", "watch", "up"], ["docker", "compose", "up", "edgy"], ["docker", "compose", "upp"]):
        with pytest.raises(AssertionError):
            check_compose(words)
    assert "edge.limits.body_bytes" in options() and "edge.limits.body_byte" not in options()
    assert "chat.remote.connection.retries" in options() and "chat.replicas" in values()
    page.write_text("`edge.limits.body_byte` and `EDGE__LIMITS__BODY_BYTE=1`\n```toml\n[edge.limits]\nbody_byte = 1\n```\n")
    for test in (test_every_option_and_value_that_is_named_is_one, test_every_variable_that_is_named_is_an_option):
        with pytest.raises(AssertionError):
            test(page)
    with pytest.raises(AssertionError):
        test_every_file_of_options_is_taken(page, tmp_path, certificates)
    create = "kubectl create secret generic koine-keys"
    page.write_text(f"```bash\n{create} --from-file=keys.toml\nhelm install koine helm/koine\n```\n")
    with pytest.raises(AssertionError):
        test_a_secret_of_keys_has_the_name_that_the_chart_mounts(page)
    page.write_text(f"```bash\n{create} --from-file=keys.toml=keys.toml\n```\n")
    with pytest.raises(AssertionError):
        test_a_secret_of_keys_has_the_name_that_the_chart_mounts(page)
