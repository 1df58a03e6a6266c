"""Writes docs/compatibility.md: which client can do what against this server, as the tests that just ran found it.

A test says whose it is by `@pytest.mark.client(name)` and what it shows by `@pytest.mark.shows(capability, ...)`. The file is
written only when the complete suite ran, and says nothing that changes from run to run, so it changes when the truth does.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs/compatibility.md"

CAPABILITIES = (
    "chat",
    "streaming",
    "tools",
    "streamed tools",
    "structured output",
    "completions",
    "embeddings",
    "image embeddings",
    "model info",
    "errors",
    "content filter",
    "content safety",
    "blocklists",
)


def pinned(file, package):
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (HERE / "requirements" / file).read_text(), re.MULTILINE)
    return found[1]


def locked(package):
    return json.loads((HERE / "node/package-lock.json").read_text())["packages"][f"node_modules/{package}"]["version"]


AZURE = pinned("main.txt", "azure-ai-inference")
OPENAI = pinned("main.txt", "openai")
LANGCHAIN_AZURE = pinned("main.txt", "langchain-azure-ai")
LANGCHAIN_OPENAI = pinned("main.txt", "langchain-openai")
OPENAI_JS = locked("openai")

# Every client that the tests may name, with the version they run.
CLIENTS = {
    "azure-ai-inference, Python": AZURE,
    "azure-ai-inference, Python, async": AZURE,
    "@azure-rest/ai-inference, JavaScript": locked("@azure-rest/ai-inference"),
    "openai, Python, `OpenAI` at `/v1`": OPENAI,
    "openai, Python, `OpenAI` at `/openai/v1`": OPENAI,
    "openai, Python, `AzureOpenAI`": OPENAI,
    "openai, JavaScript, `OpenAI` at `/v1`": OPENAI_JS,
    "openai, JavaScript, `OpenAI` at `/openai/v1`": OPENAI_JS,
    "openai, JavaScript, `AzureOpenAI`": OPENAI_JS,
    "langchain-azure-ai, inference classes": LANGCHAIN_AZURE,
    "langchain-azure-ai, OpenAI classes": LANGCHAIN_AZURE,
    "langchain-openai, `ChatOpenAI` and `OpenAIEmbeddings`": LANGCHAIN_OPENAI,
    "langchain-openai, `AzureChatOpenAI` and `AzureOpenAIEmbeddings`": LANGCHAIN_OPENAI,
    "llama-index-llms-azure-inference": pinned("main.txt", "llama-index-llms-azure-inference"),
    "llama-index-embeddings-azure-inference": pinned("main.txt", "llama-index-embeddings-azure-inference"),
    "promptflow-tools, serverless connection": pinned("other.txt", "promptflow-tools"),
    "azure-ai-contentsafety 1.0, Python": pinned("other.txt", "azure-ai-contentsafety"),
    "azure-ai-contentsafety 1.1, Python": pinned("main.txt", "azure-ai-contentsafety"),
    "@azure-rest/ai-content-safety, JavaScript": locked("@azure-rest/ai-content-safety"),
}

HEAD = """# Compatibility

Which public clients, unmodified and in these versions, can do what against this server. Written by `make test` from the tests
in `tests/clients`, against the default models; do not edit it.

**yes**: every test of it passed. **no**: one failed. **-**: the client has no such call. What the columns mean: *model info*
is `GET /info` or the list of models, *errors* are the client's own exception classes and the codes that it reads from wrong
keys, unknown models and unsupported parameters, *content filter* is a refused prompt.

"""


class Found:
    """Outcomes of the tests that name a client, by client and capability."""

    def __init__(self):
        self.outcomes = defaultdict(dict)
        self.passed = {}

    def note(self, test, clients, capabilities, passed):
        # A test reports up to three times (set-up, call, tear-down); it passed when all did.
        self.passed[test] = self.passed.get(test, True) and passed
        for client in clients:
            for capability in capabilities:
                tests = self.outcomes[client, capability]
                tests[test] = tests.get(test, True) and passed

    def cell(self, client, capability):
        tests = self.outcomes.get((client, capability))
        if not tests:
            return "-"
        return "yes" if all(tests.values()) else "no"

    def table(self):
        rows = [["client", "version", *CAPABILITIES], ["---"] * (len(CAPABILITIES) + 2)]
        for client in sorted(CLIENTS, key=str.lower):
            rows.append([client, CLIENTS[client], *(self.cell(client, capability) for capability in CAPABILITIES)])
        return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


FOUND = Found()


def pytest_configure(config):
    config.addinivalue_line("markers", "client(name): the client that this test drives, a name of compatibility.CLIENTS")
    config.addinivalue_line("markers", "shows(capability, ...): what the test shows, names of compatibility.CAPABILITIES")


def pytest_collection_modifyitems(items):
    """A misspelt name would be a row or a column that nobody sees."""
    for item in items:
        clients, capabilities = marked(item)
        assert set(clients) <= set(CLIENTS), f"{item.nodeid}: {clients}"
        assert set(capabilities) <= set(CAPABILITIES), f"{item.nodeid}: {capabilities}"
        item.user_properties.append(("clients", clients))
        item.user_properties.append(("capabilities", capabilities))


def marked(item):
    clients = [mark.args[0] for mark in item.iter_markers("client")]
    return clients, [name for mark in item.iter_markers("shows") for name in mark.args]


def pytest_runtest_logreport(report):
    properties = dict(report.user_properties)
    if properties.get("clients"):
        FOUND.note(report.nodeid, properties["clients"], properties["capabilities"], report.passed)


def complete(config, exitstatus):
    """Whether nothing was left out: no file, test or keyword chosen, and nothing interrupted the run."""
    option = config.option
    whole = [Path(argument).resolve() for argument in config.args] == [HERE]
    chosen = option.keyword or option.markexpr or option.deselect or getattr(option, "lf", False) or option.maxfail
    return whole and not chosen and exitstatus in (0, 1)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if not FOUND.passed:
        return
    passed = sum(FOUND.passed.values())
    if complete(config, exitstatus):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(FOUND.table())
        terminalreporter.write_line(f"wrote {TABLE.relative_to(HERE.parents[1])}")
    clients = {client for client, _ in FOUND.outcomes}
    terminalreporter.write_line(f"{len(clients)} clients, {len(FOUND.passed)} client cases ran")
    terminalreporter.write_line(f"clients: {passed} passed, {len(FOUND.passed) - passed} failed")
