"""Rows → batches of token ids: what an epoch sees, joined and disguised texts among them.

Every epoch draws anew (from its own seed), so that fillings of a template and windows of long texts take turns.
"""

import numpy as np

import disguise
from minilm import CATEGORIES, OUTPUTS

BEGIN, END = 101, 102
# The longest view that the service judges (`VIEW_TOKENS` in src/classify.rs), and that is learnt from.
WINDOW = 160
BATCH_TOKENS = 1536
# Rows an epoch draws from a source; authored lines come by their weight.
DRAWN = {"neuralchemy": 600, "s-labs": 800, "yanismiraoui": 120, "inthewild": 60, "scikit-learn": 40, "pyrit": 100, "advbench": 80,
         "harmbench": 50, "strongreject": 70, "donotanswer": 140}
# How much a row of a source counts: authored lines are few and right, packaged ones many and coarse.
TRUST = {"authored": 1.0, "mixture": 0.7, "pyrit": 0.3, "advbench": 0.3, "harmbench": 0.3, "strongreject": 0.4, "donotanswer": 0.3}
MIXTURES = 600
DOCUMENTS = 500
# Parts of an epoch's authored rows that come disguised, lose their end mark, or lose words.
DISGUISED, BARE, THINNED = 0.08, 0.25, 0.5
THIN = 0.1
# A miss costs more than a false alarm.
POSITIVE = 1.5
MASK = 103


class Feeder:
    """Draws epochs from rows."""

    def __init__(self, rows, tokenizer, seed):
        self.rows, self.tokenizer, self.seed = rows, tokenizer, seed
        self.ids = {}
        self.places = {}
        for i, row in enumerate(rows):
            self.places.setdefault(row.source.split("/")[0], []).append(i)

    def encode(self, text):
        if text not in self.ids:
            self.ids[text] = self.tokenizer.encode(text[:20000], add_special_tokens=False).ids
        return self.ids[text]

    def epoch(self, number):
        rng = np.random.default_rng([self.seed, number])
        items = []
        for source, places in self.places.items():
            if source == "authored":
                drawn = [i for i in places if rng.random() < self.rows[i].weight]
            else:
                drawn = rng.choice(places, min(DRAWN[source], len(places)), replace=False)
            items += [self.item(self.rows[i], rng) for i in drawn]
        items += [self.item(row, rng) for row in [*self.mixtures(rng), *self.documents(rng)]]
        return self.batches([i for i in items if i], rng)

    def mixtures(self, rng):
        """Harmless lines joined, every other time with one harmful line among them."""
        lines = [self.rows[i] for i in self.places["authored"]]
        chance = np.array([r.weight for r in lines])
        good = np.array([r.severity == 0 for r in lines])
        bad = np.array([r.severity is not None and r.severity >= 4 for r in lines])
        plain = [self.rows[i] for s in ("s-labs", "neuralchemy") for i in self.places[s]
                 if self.rows[i].attack == 0 and self.rows[i].targets and len(self.rows[i].text) < 300]
        draw = lambda which, n: [lines[i] for i in rng.choice(len(lines), n, p=chance * which / (chance * which).sum())]
        for n in range(MIXTURES):
            picked = draw(good, rng.integers(1, 4)) + [plain[i] for i in rng.choice(len(plain), rng.integers(0, 4))]
            if n % 2:
                picked = picked[: rng.integers(1, len(picked) + 1)] + draw(bad, 1)
            picked = [picked[i] for i in rng.permutation(len(picked))]
            targets = {c: max(r.targets[c] for r in picked) for c in CATEGORIES}
            attack = None if any(r.attack is None for r in picked) else max(r.attack for r in picked)
            yield type(picked[0])(["\n", " ", " ", "\n\n"][n // 2 % 4].join(r.text for r in picked), "mixture", targets=targets,
                                  attack=attack, indirect=max(r.indirect for r in picked))

    def documents(self, rng):
        """Passages with an instruction to the model that reads them at the beginning, in the middle or at the end, and without."""
        plain = [self.rows[i] for i in self.places["authored"] if self.rows[i].severity == 0 and self.rows[i].tag in ("indirect", "none", "hate")]
        plain += [self.rows[i] for s in ("s-labs", "neuralchemy", "scikit-learn") for i in self.places[s]
                  if self.rows[i].attack == 0 and self.rows[i].targets and len(self.rows[i].text) < 400]
        orders = [self.rows[i] for i in self.places["authored"] if self.rows[i].indirect == 1]
        own = np.array([(3.0 if r.tag == "indirect" else 1.0) * r.weight for r in orders])
        for n in range(DOCUMENTS):
            picked = [plain[i] for i in rng.integers(0, len(plain), rng.integers(1, 4))]
            order = [orders[rng.choice(len(orders), p=own / own.sum())]] if n % 2 else []
            at = int(rng.integers(0, len(picked) + 1))
            text = [" ", "\n"][n // 2 % 2].join(r.text for r in picked[:at] + order + picked[at:])
            attack = order[0].attack if order else 0.0
            yield type(picked[0])(text, "mixture", targets=dict.fromkeys(CATEGORIES, 0.0), attack=attack, indirect=float(bool(order)))

    def item(self, row, rng):
        text, authored = row.text, row.source.startswith("authored")
        if authored and rng.random() < DISGUISED:
            # A disguise must not be a sign of harm: harmless lines wear it too, and stay harmless as they stand.
            text = disguise.any_of(text, rng)
        elif authored and rng.random() < BARE:
            text = text.rstrip(".?!").replace("'", "’" if rng.random() < 0.3 else "'")
        ids = self.encode(text)[:]
        if len(ids) > WINDOW - 2:
            # Attacks announce themselves early, so their first window counts; others any.
            start = 0 if row.attack else int(rng.integers(0, len(ids) - WINDOW + 3))
            ids = ids[start : start + WINDOW - 2]
        if authored and rng.random() < THINNED:
            ids = [MASK if rng.random() < THIN else t for t in ids]
        target, weight, grade = np.zeros(len(OUTPUTS)), np.zeros(len(OUTPUTS)), np.full(len(CATEGORIES), -1)
        for j, name in enumerate(CATEGORIES):
            if name in row.targets:
                target[j], weight[j] = row.targets[name], 1
                if row.severity is not None:
                    grade[j] = row.severity if row.targets[name] > 0 else 0
        for j, value in [(4, row.attack), (5, row.indirect)]:
            if value is not None:
                target[j], weight[j] = value, 1
        weight *= TRUST.get(row.source.split("/")[0], 0.5) * np.where(target >= 0.5, POSITIVE, 1.0)
        return [BEGIN, *ids, END], target, weight, grade

    def batches(self, items, rng):
        """Texts of about the same length together, in an order of chance."""
        items = sorted(items, key=lambda i: len(i[0]) + rng.random())
        out, at = [], 0
        while at < len(items):
            end = at + 1
            while end < len(items) and max(len(i[0]) for i in items[at : end + 1]) * (end + 1 - at) <= BATCH_TOKENS:
                end += 1
            out.append(pack(items[at:end]))
            at = end
        return [out[i] for i in rng.permutation(len(out))]


def pack(members):
    """Arrays of one batch."""
    size, width = len(members), max(len(m[0]) for m in members)
    ids, mask = np.zeros((size, width), np.int32), np.zeros((size, width), np.float32)
    for row, member in enumerate(members):
        ids[row, : len(member[0])], mask[row, : len(member[0])] = member[0], 1
    return {"ids": ids, "mask": mask, "target": np.array([m[1] for m in members], np.float32),
            "weight": np.array([m[2] for m in members], np.float32), "severity": np.array([m[3] for m in members])}
