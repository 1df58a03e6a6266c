"""What the docs name exists: links, files, options, variables, values, commands; and what they show as a file is taken.

Names are looked up where they come from: options in the commented config.toml files, values in the chart, words of commands in
the programs themselves. A block of TOML is given to `koine config check`, one of values to helm.
"""

import functools
import json
import re
import shlex

import pytest
import yaml
from render import CHART
from tools import BINARIES, ROOT, run

PAGES = sorted(
    page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), CHART / "README.md") if page.name != "compatibility.md"
)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
# What the docs tell an operator: these are read word by word.
GUIDES = [ROOT / "README.md", *(ROOT / f"docs/{n}.md" for n in ("install", "configure", "scale", "operate", "migrate", "grpc", "release"))]
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
    assert checked or page.name in ("migrate.md", "release.md")


@guides
def test_every_variable_that_is_named_is_an_option(page):
    for name in re.findall(r"\b((?:EDGE|CHAT|EMBEDDING|CONTENT_SAFETY|STANDALONE)(?:__[A-Z]+(?:_[A-Z]+)*)+)", page.read_text()):
        assert name.lower().replace("__", ".") in options(), name


@guides
def test_every_file_of_options_is_taken(page, tmp_path):
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        # What a gateway, a Secret or the platform would bring.
        text = re.sub(r'"(/run/secrets/\w+|keys\.toml)"', f'"{key_file(tmp_path)}"', text)
        file.write_text(text)
        done = run(BINARIES / "koine", "config", "check", "--config", file)
        assert done.returncode == 0, f"{text}\n{done.stderr}"


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


def test_figures_are_those_of_the_readme():
    """`make bench` fills one table; the other must not remember older figures."""
    figures = dict(re.findall(r"^\| (.*?) \| (.*?) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    table = (ROOT / "docs/scale.md").read_text().split("| | measured |\n| --- | --- |\n")[1].split("\n\n")[0]
    for row in table.splitlines():
        what, measured = (cell.strip() for cell in row.strip("|").split("|"))
        whole = next((key for key in figures if key == what or key.startswith(f"{what},")), None)
        assert whole and figures[whole] == measured, row


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
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(words[1:]) <= targets, words


def check_helm(words):
    assert words[1] in {"install", "upgrade", "test", "rollback", "package"}, words
    for at, word in enumerate(words):
        if word.startswith("--set"):
            for pair in words[at + 1].split(","):
                assert pair.split("=")[0] in values(), pair
        elif word.startswith("-") and word not in ("-f",):
            assert word in run("helm4", words[1], "--help").stdout, words
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


def test_the_checks_find_what_is_wrong(tmp_path):
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
        test_every_file_of_options_is_taken(page, tmp_path)
