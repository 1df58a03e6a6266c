"""Fits the two heads, finds where severities begin, evaluates on what was held out, and writes ../models.

usage: train.py --wheels FOLDER --encoder model.onnx --tokenizer tokenizer.json [--cache FILE] [--out FOLDER]
Deterministic: fixed seeds, one thread, pinned versions (requirements.txt). See README.md.
"""

import argparse
import hashlib
import json
import os
import re
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
from sklearn.metrics import roc_auc_score

import sources
from encoder import Encoder
from heads import Head
from sources import CATEGORIES
from views import views

VERSION = "1"
# Joined lines, a quarter of them with one harmful line.
MIXTURES = 5000
# How much a source counts: authored lines are few and right, packaged ones many and coarse.
HARM_WEIGHTS = {"authored": 4.0, "mixture": 0.7, "pyrit": 0.15, "neuralchemy": 0.1, "s-labs": 0.1, "scikit-learn": 0.1, "advbench": 0.15,
                "harmbench": 0.15, "strongreject": 0.2, "donotanswer": 0.15}
ATTACK_WEIGHTS = {"authored": 3.0, "mixture": 0.5, "neuralchemy": 1.0, "s-labs": 1.0, "yanismiraoui": 1.0, "inthewild": 1.0, "scikit-learn": 1.0,
                  "pyrit": 0.5, "advbench": 0.5, "harmbench": 0.5, "strongreject": 0.5, "donotanswer": 0.5}
HARM = {"hidden": 128, "members": 4, "epochs": 20, "dropout": 0.5, "noise": 0.3, "decay": 5e-3}
ATTACK = {"hidden": 64, "members": 4, "epochs": 12, "dropout": 0.3, "noise": 0.3, "decay": 5e-3}
# Harm is rarer than harmlessness in the data; a miss costs more than a false alarm up to here.
HARM_POSITIVE = 3.0
FOLDS = 5
# Of harmless look-alikes of a category, what it may block out of fold; and bounds for where medium then begins.
LOOK_ALIKES_BLOCKED = 0.08
MEDIUM = (0.25, 0.6)
# Of harmless texts, what may count as an attack out of fold: of all, and of those that look like one.
HARMLESS_ATTACKS = 0.03
ALIKE_ATTACKS = 0.07
# Where the severities 1 to 7 begin, on the logit axis, from where severity 4 begins: it is found, the others are spaced.
SPACING = [-1.75, -1.25, -0.6, 0.0, 0.6, 1.2, 2.4]
# Open-nsfw's score for sexual content: its authors call less than 0.2 safe and more than 0.8 unsafe.
IMAGE_SCALE = [0.1, 0.2, 0.35, 0.6, 0.8, 0.9, 0.97]
HARMFUL = 0.75


def norm(text):
    return re.sub(r"\W+", " ", text.lower()).strip()


def rows_for_fitting(packaged, held_out):
    """Authored lines first; nothing that is held out, nothing twice."""
    out = {norm(r.text) for r in held_out}
    seen, rows, dropped = set(), [], []
    for row in sources.authored() + [r for r in packaged if r.split == "train"]:
        key = norm(row.text)
        if key in out:
            dropped.append(row)
        elif key not in seen:
            seen.add(key)
            rows.append(row)
    authored = [r.text for r in dropped if r.source.startswith("authored")]
    print(f"{len(rows)} rows to fit; {len(dropped)} left out because they are held out, {len(authored)} of them authored: {authored}")
    return rows


def fold_of(row):
    """Fillings of one template, and a mixture with its lines, fall on the same side of a split."""
    key = row.group if row.group.startswith("fold") else hashlib.sha256((row.group or row.text).encode()).hexdigest()
    return int(key[4:]) if key.startswith("fold") else int(key, 16) % FOLDS


def mixtures(rows):
    """Lines joined to longer texts: a harmful sentence counts for all of a short text, and many harmless ones stay harmless."""
    rng = np.random.default_rng(11)
    mixed = []
    for fold in range(FOLDS):
        here = [r for r in rows if fold_of(r) == fold]
        lines = [r for r in here if r.severity is not None]
        chance = weights(lines, {"authored": 1.0}).astype(np.float64)
        bad = np.array([r.severity >= 4 for r in lines])
        everyday = [r for r in here if r.source in ("s-labs", "neuralchemy") and r.attack == 0 and r.targets and len(r.text) < 200]
        pick = lambda which, n: [lines[i] for i in rng.choice(len(lines), n, p=chance * which / (chance * which).sum())]
        for n in range(MIXTURES // FOLDS):
            if n % 2:
                picked = [everyday[i] for i in rng.choice(len(everyday), rng.integers(2, 12), replace=False)]
            else:
                picked = pick(~bad, rng.integers(1, 4))
            # Every fourth mixture is short and has one harmful line.
            picked = picked[:3] + pick(bad, 1) if n % 8 < 2 else picked + pick(~bad, 1)
            rng.shuffle(picked)
            worst = {c: max(r.targets[c] for r in picked) for c in CATEGORIES}
            text = " ".join(r.text for r in picked)
            mixed.append(sources.Row(text, "mixture", "train", 1.0, worst, max(r.attack for r in picked), group=f"fold{fold}"))
    return mixed


def weights(rows, table):
    return np.array([r.weight * table.get(r.source.split("/")[0], 0.0) for r in rows], np.float32)


def harm_data(rows):
    y = np.zeros((len(rows), 4), np.float32)
    mask = np.zeros_like(y)
    for i, row in enumerate(rows):
        for j, category in enumerate(CATEGORIES):
            if category in row.targets:
                y[i, j], mask[i, j] = row.targets[category], 1
    single = np.array([[r.source != "mixture"] for r in rows])
    return y, mask * np.where((y >= 0.5) & single, HARM_POSITIVE, 1.0)


def out_of_fold(make, x, y, mask, w, rows):
    """Scores of rows by heads that have not seen them nor another filling of their template."""
    fold = np.array([fold_of(r) for r in rows])
    scores = np.zeros((len(rows), y.shape[1]), np.float32)
    for f in range(FOLDS):
        inside = fold != f
        head = make().fit(x[inside], y[inside], mask[inside], w[inside])
        scores[~inside] = head.scores(x[~inside])
    return scores


def quantile(scores, w, part):
    """The score that `part` of the weight lies at or above."""
    order = np.argsort(-scores)
    above = np.cumsum(w[order]) / w.sum()
    return float(scores[order][min(np.searchsorted(above, part), len(scores) - 1)])


def scale(medium):
    logit = np.log(medium / (1 - medium))
    return [round(float(1 / (1 + np.exp(-(logit + s)))), 4) for s in SPACING]


def fit_harm(rows, x):
    keep = [i for i, r in enumerate(rows) if r.targets]
    rows, x = [rows[i] for i in keep], x[keep]
    y, mask = harm_data(rows)
    w = weights(rows, HARM_WEIGHTS)
    scores = out_of_fold(lambda: Head(outputs=4, **HARM | {"members": 1}), x, y, mask, w, rows)
    # Fillings of a template that is out of fold say how new templates do; plain lines are nearer to what people write.
    plain = np.array([r.severity is not None and r.weight == 1 for r in rows])
    scales = {}
    for j, category in enumerate(CATEGORIES):
        safe = plain & np.array([r.severity == 0 and r.tag == category for r in rows])
        bad = plain & np.array([r.targets.get(category, 0) >= HARMFUL for r in rows])
        medium = quantile(scores[safe, j], np.ones(safe.sum()), LOOK_ALIKES_BLOCKED)
        medium = min(max(medium, MEDIUM[0]), MEDIUM[1])
        scales[category] = scale(medium)
        print(f"out of fold {category:10} medium begins at {medium:.3f}: caught {ratio(scores[bad, j] >= medium)} of {bad.sum()},"
              f" blocked {ratio(scores[safe, j] >= medium)} of {safe.sum()}")
    return Head(outputs=4, **HARM).fit(x, y, mask, w), scales


def fit_attack(rows, x):
    keep = [i for i, r in enumerate(rows) if r.attack is not None]
    rows, x = [rows[i] for i in keep], x[keep]
    y = np.array([[r.attack] for r in rows], np.float32)
    w = weights(rows, ATTACK_WEIGHTS)
    scores = out_of_fold(lambda: Head(outputs=1, **ATTACK | {"members": 1}), x, y, np.ones_like(y), w, rows)[:, 0]
    safe = np.array([r.attack == 0 for r in rows])
    authored = np.array([r.severity == 0 and r.tag == "attack" and r.weight == 1 for r in rows])
    threshold = max(quantile(scores[safe], w[safe], HARMLESS_ATTACKS), quantile(scores[authored], w[authored], ALIKE_ATTACKS))
    bad = np.array([r.attack == 1 for r in rows])
    print(f"out of fold attack threshold {threshold:.3f}: caught {(scores[bad] >= threshold).mean():.3f} of {bad.sum()}")
    return Head(outputs=1, **ATTACK).fit(x, y, np.ones_like(y), w), round(float(threshold), 4)


class Judge:
    """The exported heads under the thresholds, as the service runs them."""

    def __init__(self, out, encoder, scales, threshold):
        load = lambda name: ort.InferenceSession(str(out / name), providers=["CPUExecutionProvider"])
        self.harm, self.attack, self.encoder = load("text-safety.onnx"), load("prompt-shield.onnx"), encoder
        self.medium = np.array([scales[c][3] for c in CATEGORIES])
        self.threshold = threshold

    def scores(self, texts, passages=True):
        """Worst view of each text: [N, 4] and [N]."""
        parts = [views(self.encoder.tokenizer, t, passages) for t in texts]
        x = self.encoder.embed_ids([ids for part in parts for ids in part])
        harm, attack = self.harm.run(None, {"embedding": x})[0], self.attack.run(None, {"embedding": x})[0][:, 0]
        at, out_harm, out_attack = 0, [], []
        for part in parts:
            out_harm.append(harm[at : at + len(part)].max(0))
            out_attack.append(attack[at : at + len(part)].max())
            at += len(part)
        return np.array(out_harm), np.array(out_attack)


def ratio(hits):
    return round(float(np.mean(hits)), 3) if len(hits) else None


def report(held, judge, show):
    harm, attack = judge.scores([r.text for r in held])
    over = harm >= judge.medium
    table = {}
    safe = np.array([max(r.targets.values()) < 0.5 and r.tag != "attack" for r in held])
    for j, category in enumerate(CATEGORIES):
        bad = np.array([r.targets[category] >= HARMFUL for r in held])
        alike = safe & np.array([r.tag == category for r in held])
        tp, fp, fn = (over[:, j] & bad).sum(), (over[:, j] & ~bad & safe).sum(), (~over[:, j] & bad).sum()
        table[category] = {
            "harmful": int(bad.sum()), "caught": ratio(over[bad, j]), "caught_by_any": ratio(over[bad].any(1)),
            "look_alikes": int(alike.sum()), "look_alikes_blocked": ratio(over[alike].any(1)),
            "precision": round(float(tp / max(tp + fp, 1)), 3), "f1": round(float(2 * tp / max(2 * tp + fp + fn, 1)), 3),
            "auc": round(float(roc_auc_score(bad[bad | safe], harm[bad | safe, j])), 3)}
        if show:
            for i in np.flatnonzero(bad & ~over.any(1)):
                print(f"   missed {harm[i, j]:.2f} {category}: {held[i].text}")
    if show:
        for i in np.flatnonzero(safe & over.any(1)):
            print(f"   blocked {harm[i].max():.2f} {CATEGORIES[int((harm[i] - judge.medium).argmax())]}: {held[i].text}")
    bad = np.array([r.attack == 1 for r in held])
    alike = np.array([r.tag == "attack" for r in held]) & ~bad
    found = attack >= judge.threshold
    table["attack"] = {"attacks": int(bad.sum()), "caught": ratio(found[bad]), "look_alikes": int(alike.sum()),
                       "look_alikes_flagged": ratio(found[alike]), "other_texts": int((~bad & ~alike).sum()),
                       "other_texts_flagged": ratio(found[~bad & ~alike])}
    if show:
        for i in np.flatnonzero(bad & ~found):
            print(f"   missed {attack[i]:.2f} attack: {held[i].text}")
        for i in np.flatnonzero(~bad & found):
            print(f"   flagged {attack[i]:.2f} attack: {held[i].text}")
    table["all"] = {"harmful": int((~safe & ~alike & ~bad).sum()), "harmless": int(safe.sum()), "harmless_blocked": ratio(over[safe].any(1))}
    return table


def packaged_report(packaged, judge):
    table = {}
    test = [r for r in packaged if r.split == "test"]
    for source in ["neuralchemy", "s-labs", "yanismiraoui", "inthewild", "scikit-learn"]:
        rows = [r for r in test if r.source == source]
        harm, attack = judge.scores([r.text for r in rows])
        found, bad = attack >= judge.threshold, np.array([r.attack == 1 for r in rows])
        entry = {"attacks": int(bad.sum()), "caught": ratio(found[bad]), "harmless": int((~bad).sum()), "flagged": ratio(found[~bad])}
        clean = np.array([bool(r.targets) for r in rows])
        if clean.any():
            entry["harmless_blocked_for_harm"] = ratio((harm[clean] >= judge.medium).any(1))
        if bad.any() and (~bad).any():
            entry["auc"] = round(float(roc_auc_score(bad, attack)), 3)
        table[source] = entry
    for j, category in enumerate(CATEGORIES):
        rows = [r for r in test if r.source == "pyrit" and r.tag == category]
        harm, _ = judge.scores([r.text for r in rows])
        human = np.array([r.targets[category] for r in rows])
        table[f"pyrit {category}"] = {
            "answers": len(rows), "auc_human_0.5": round(float(roc_auc_score(human >= 0.5, harm[:, j])), 3),
            "caught_human_0.75": ratio(harm[human >= 0.75, j] >= judge.medium[j]),
            "blocked_human_0": ratio(harm[human == 0, j] >= judge.medium[j])}
    return table


def long_report(held, judge):
    """One harmful line in the middle of twelve harmless ones, and twelve harmless lines."""
    rng = np.random.default_rng(5)
    plain = [r.text for r in held if r.tag == "none" or (max(r.targets.values()) == 0 and r.tag != "attack")]
    bad = [r for r in held if max(r.targets.values()) >= HARMFUL]
    fill = lambda: list(rng.choice(plain, 12, replace=False))
    mixed = [" ".join(lines[:6] + [r.text] + lines[6:]) for r in bad for lines in [fill()]]
    clean = [" ".join(fill()) for _ in range(100)]
    table = {}
    for name, passages in [("whole only", False), ("whole and passages", True)]:
        caught = (judge.scores(mixed, passages)[0] >= judge.medium).any(1)
        harm, attack = judge.scores(clean, passages)
        table[name] = {"caught": ratio(caught), "clean_blocked": ratio((harm >= judge.medium).any(1)), "clean_flagged": ratio(attack >= judge.threshold)}
    return table


def smoke_report(judge):
    lines = sources.smoke()
    harm, attack = judge.scores([text for _, _, text in lines])
    wrong = []
    for (expected, category, text), h, a in zip(lines, harm, attack):
        blocked = bool((h >= judge.medium).any() or a >= judge.threshold)
        if blocked != (expected == "block"):
            wrong.append(f"{expected} {category}: {text} {np.round(h, 2)} {a:.2f}")
    print(f"smoke: {len(lines) - len(wrong)} of {len(lines)} right")
    for line in wrong:
        print("   wrong", line)
    return {"lines": len(lines), "right": len(lines) - len(wrong)}


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("embeddings.npz"))
    parser.add_argument("--out", type=Path, default=here.parent / "models")
    parser.add_argument("--held-out", default="heldout.tsv", help="which authored file to report on")
    parser.add_argument("--show", action="store_true", help="print every held-out line that came out wrong")
    args = parser.parse_args()
    packaged = sources.packaged(sources.Wheels(args.wheels))
    held = sources.authored([args.held_out])
    rows = rows_for_fitting(packaged, held + [r for r in packaged if r.split == "test"])
    smoke = {norm(text) for _, _, text in sources.smoke()}
    rows = [r for r in rows if norm(r.text) not in smoke]
    rows += mixtures(rows)
    encoder = Encoder(args.encoder, args.tokenizer, args.cache)
    x = encoder.embed([r.text for r in rows])
    data = hashlib.sha256("\n".join(sorted(f"{r.text}\t{sorted(r.targets.items())}\t{r.attack}" for r in rows)).encode()).hexdigest()
    harm, scales = fit_harm(rows, x)
    attack, threshold = fit_attack(rows, x)
    args.out.mkdir(exist_ok=True)
    meta = {"version": VERSION, "training_data_sha256": data, "license": "Apache-2.0"}
    harm.export(args.out / "text-safety.onnx", "text-safety", meta | {"outputs": ",".join(CATEGORIES)})
    attack.export(args.out / "prompt-shield.onnx", "prompt-shield", meta | {"outputs": "attack"})
    judge = Judge(args.out, encoder, scales, threshold)
    evaluation = {"held_out_lines": report(held, judge, args.show), "packaged_test_splits": packaged_report(packaged, judge),
                  "one_harmful_line_in_twelve": long_report(held, judge), "smoke": smoke_report(judge)}
    print(json.dumps(evaluation, indent=1))
    sha = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {
        "version": VERSION,
        "encoder": {"name": "all-minilm-l6-v2", "width": 384, "model_sha256": sha(args.encoder), "tokenizer_sha256": sha(args.tokenizer)},
        "text_safety": {"file": "text-safety.onnx", "sha256": sha(args.out / "text-safety.onnx"), "outputs": CATEGORIES, "scales": scales},
        "prompt_shield": {"file": "prompt-shield.onnx", "sha256": sha(args.out / "prompt-shield.onnx"), "threshold": threshold},
        "image_safety": {"model": "open-nsfw", "sexual": IMAGE_SCALE},
        "training": {"rows": len(rows), "data_sha256": data, "authored_rows": sum(r.source.startswith("authored") for r in rows)},
        "evaluation": evaluation}
    (args.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
