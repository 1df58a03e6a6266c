"""Where severities and attacks begin, and what that catches and blocks of rows that the fit has not seen nor the evaluation uses.

On lines alone, on windows full of them, on passages and on beginnings of lines, since the service sees all of these.
"""

import hashlib
import re

import numpy as np

import minilm
import sources
from batches import BEGIN, END, WINDOW, Feeder, pack
from minilm import CATEGORIES

VERSION = "3"
OVERLAP = 40
# One group of authored lines in so many is for calibration.
PART = 10
# Of the packaged rows, how many calibrate: they are many, and long.
PACKAGED = 1000
# What a kind of text counts for beside lines alone, all of its rows together.
KINDS = {"mixture": 0.5, "fragment": 0.1}
# Where medium begins, as a logit: where harm is likelier than not, which is what the fit aims at. What that catches and blocks is
# measured below.
MEDIUM = 0.0
# What may count as an attack of harmless prompts, among all of them and among those that look like one.
ATTACK_ALARMS, NEAR_ALARMS = 0.001, 0.01
# Bounds for where attacks begin, as logits.
ATTACK = (-1.5, 2.5)
# Open-nsfw's score for sexual content: its authors call less than 0.2 safe and more than 0.8 unsafe.
IMAGE_SCALE = [0.1, 0.2, 0.35, 0.6, 0.8, 0.9, 0.97]


def split(rows, held):
    """Rows to fit and rows to calibrate with: whole groups, the packaged validation splits, and `held`."""
    taken = {re.sub(r"\W+", " ", r.text.lower()) for r in held}
    fitted, kept = [], list(held)
    for row in rows:
        if re.sub(r"\W+", " ", row.text.lower()) in taken:
            continue
        part = row.severity is not None and int(hashlib.sha256(row.group.encode()).hexdigest(), 16) % PART == 0
        (kept if part or row.split == "validation" else fitted).append(row)
    return fitted, kept


class Arrays:
    """The model in numpy."""

    def __init__(self, base, train):
        self.w, self.train = minilm.merged(base, train), train

    def __call__(self, ids, mask):
        return minilm.Pass(self.w, self.train, ids, mask).scores


class Graph:
    """The model as the store made it."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, ids, mask):
        ids = ids.astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": np.zeros_like(ids)}
        scores = np.clip(self.session.run(["scores"], feed)[0].astype(np.float64), 1e-7, 1 - 1e-7)
        return np.log(scores / (1 - scores))


class Scorer:
    """The model as the service runs it: windows of a text, the worst of which decides."""

    def __init__(self, run, tokenizer):
        self.run, self.tokenizer = run, tokenizer
        # In 8 bits the range of a whole batch sets the steps, and the service judges one text at a time.
        self.batch = 1 if isinstance(run, Graph) else 16

    def windows(self, text):
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        size, start = WINDOW - 2, 0
        while True:
            yield [BEGIN, *ids[start : start + size], END]
            if start + size >= len(ids):
                return
            start += size - OVERLAP

    def logits(self, texts):
        rows = [(n, w) for n, t in enumerate(texts) for w in self.windows(t)]
        rows.sort(key=lambda r: len(r[1]))
        out = np.full((len(texts), len(minilm.OUTPUTS)), -30.0)
        for at in range(0, len(rows), self.batch):
            some = rows[at : at + self.batch]
            ids, mask = pack([(w, 0, 0, 0) for _, w in some])["ids"], pack([(w, 0, 0, 0) for _, w in some])["mask"]
            got = self.run(ids, mask)
            for (n, _), scores in zip(some, got):
                out[n] = np.maximum(out[n], scores)
        return out


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def cut(scores, part, weight=None):
    """The logit that `part` of the weight lies at or above, within ATTACK."""
    weight = np.ones(len(scores)) if weight is None else weight
    order = np.argsort(-scores)
    above = np.cumsum(weight[order]) / weight.sum()
    at = int(np.searchsorted(above, part))
    # Halfway to the next lower score, so that the cut does not hang on one line.
    value = scores[order[min(at, len(order) - 1)]] + 1e-3
    return float(np.clip(value, *ATTACK))


def views(kept, tokenizer):
    """`kept`, and what a service sees of such lines when they come together or are cut."""
    feeder, rng = Feeder(kept, tokenizer, 0), np.random.default_rng(1)
    made = [r for r in [*feeder.mixtures(rng), *feeder.fragments(rng)] if r]
    packaged = [r for r in kept if r.severity is None]
    some = rng.permutation(len(packaged))[:PACKAGED]
    return [r for r in kept if r.severity is not None] + [packaged[i] for i in some] + made


def weights(rows, authored):
    """Of authored lines their own; of what was made of lines, what `KINDS` says, as a part of those."""
    weight = np.array([r.weight for r in rows])
    for kind, part in KINDS.items():
        mine = np.array([r.source == kind for r in rows])
        weight[mine] = part * weight[authored].sum() / max(mine.sum(), 1)
    return weight


def part(hits):
    return round(float(hits.mean()), 3) if len(hits) else None


def manifest(kept, scorer, spread, log):
    kept = views(kept, scorer.tokenizer)
    s = scorer.logits([r.text for r in kept])
    alone = np.array([r.severity is not None for r in kept])
    weight = weights(kept, alone)
    authored = alone | np.array([r.source in KINDS for r in kept])
    kinds = {"alone": alone, **{k: np.array([r.source == k for r in kept]) for k in KINDS}}
    blocked = np.zeros(len(kept), bool)
    scales, found = {}, {}
    for j, name in enumerate(CATEGORIES):
        known = np.array([name in r.targets for r in kept])
        safe = authored & np.array([r.targets.get(name, 1) < 0.5 for r in kept])
        bad = authored & np.array([r.targets.get(name, 0) >= 0.75 for r in kept])
        low, high = np.maximum(spread[j], 0.5)
        steps = [-low - 0.6, -low, -low / 2, 0.0, high / 2, high, high + 1.5]
        scales[name] = [round(float(sigmoid(MEDIUM + x)), 4) for x in steps]
        found[name] = {"harmful": int(bad.sum()), "caught": round(float((s[bad, j] >= MEDIUM).mean()), 3),
                       "harmless": int(safe.sum()), "blocked": round(float((s[safe, j] >= MEDIUM).mean()), 3)}
        log(f"calibration {name:10} medium at {sigmoid(MEDIUM):.3f}: {found[name]}, {known.sum()} rows")
        blocked |= s[:, j] >= MEDIUM
        for kind, mine in kinds.items():
            log(f"  {kind}: {part(s[bad & mine, j] >= MEDIUM)} caught, {part(s[safe & mine, j] >= MEDIUM)} blocked")
    worst = np.array([max(r.targets.values(), default=1.0) for r in kept])
    for kind, mine in kinds.items():
        log(f"by any category, {kind}: {part(blocked[mine & (worst >= 0.75)])} caught, {part(blocked[mine & (worst < 0.1)])} blocked")
    attacks = {}
    for j, name, label in [(4, "jailbreak", "attack"), (5, "indirect", "indirect")]:
        value = np.array([-1 if getattr(r, label) is None else getattr(r, label) for r in kept])
        safe, bad = value == 0, value == 1
        near = safe & np.array([r.tag in ("attack", "indirect") for r in kept])
        threshold = max(cut(s[safe, j], ATTACK_ALARMS), cut(s[near, j], NEAR_ALARMS, weight[near]))
        attacks[name] = round(float(sigmoid(threshold)), 4)
        found[name] = {"attacks": int(bad.sum()), "caught": round(float((s[bad, j] >= threshold).mean()), 3),
                       "harmless": int(safe.sum()), "flagged": round(float((s[safe, j] >= threshold).mean()), 3)}
        log(f"calibration {name:10} from {attacks[name]:.3f}: {found[name]}")
    return {"version": VERSION, "encoder": {"name": "koine-safety-minilm"},
            "text_safety": {"scales": scales}, "prompt_shield": {"jailbreak": attacks["jailbreak"], "indirect": attacks["indirect"]},
            "image_safety": {"sexual": IMAGE_SCALE}, "calibration": found}
