"""Rows → batches of token ids: what an epoch sees, joined and disguised texts among them.

Every epoch draws anew (from its own seed), so that fillings of a template and windows of long texts take turns.
"""

import re

import numpy as np

import disguise
from minilm import CATEGORIES, OUTPUTS

BEGIN, END = 101, 102
# The longest view that the service judges (`VIEW_TOKENS` in src/classify.rs), and that is learnt from.
WINDOW = 160
BATCH_TOKENS = 1536
# Rows an epoch draws from a source; authored lines come by their weight.
DRAWN = {"neuralchemy": 600, "s-labs": 800, "yanismiraoui": 120, "inthewild": 60, "scikit-learn": 40, "pyrit": 100, "advbench": 80,
         "harmbench": 50, "strongreject": 70, "donotanswer": 140, "pyrit-other": 50}
# How much a row of a source counts: authored lines are few and right, packaged ones many and coarse.
TRUST = {"authored": 1.0, "mixture": 0.8, "fragment": 0.5, "pyrit": 0.3, "advbench": 0.3, "harmbench": 0.3, "strongreject": 0.4, "donotanswer": 0.3}
MIXTURES = 800
DOCUMENTS = 500
FRAGMENTS = 350
# Tokens that joined texts may take: from two lines to the whole window.
ROOM = (24, WINDOW - 2)
# Of joined texts, those with a harmful line among the harmless ones.
TAINTED = 0.45
# Most words of the beginning of a line.
BEGINNING = 8
# Parts of an epoch's authored rows that come disguised, lose their end mark, or lose words; of passages, those that are cut.
DISGUISED, BARE, THINNED, CUT = 0.12, 0.25, 0.5, 0.6
THIN = 0.1
# Authored files of whole texts, any run of sentences of which is harmless.
PASSAGES = ("authored/prose", "authored/answers")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
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
        items += [self.item(row, rng) for row in [*self.mixtures(rng), *self.documents(rng), *self.fragments(rng)]]
        return self.batches([i for i in items if i], rng)

    def pools(self):
        """Authored lines, and harmless texts by others that are short enough to be joined."""
        lines = [self.rows[i] for i in self.places["authored"]]
        plain = [self.rows[i] for s in ("s-labs", "neuralchemy") for i in self.places[s]
                 if self.rows[i].attack == 0 and self.rows[i].targets and len(self.rows[i].text) < 300]
        return lines, plain

    def drawing(self, rows, rng, chance=None):
        """A function that draws one of `rows`, by their weight unless `chance` says otherwise."""
        chance = np.array([r.weight for r in rows]) if chance is None else chance
        # Draws by thousands: one at a time is slow.
        places = iter(rng.choice(len(rows), 40000, p=chance / chance.sum()))
        return lambda: rows[next(places)]

    def passage(self, row, rng, room):
        """Sentences of a text that follow one another, as many as `room` tokens hold; a line that is no text stays whole."""
        if row.source not in PASSAGES:
            return row.text
        sentences = SENTENCE.split(row.text)
        at = int(rng.integers(0, len(sentences)))
        end = at + 1
        while end < len(sentences) and len(self.encode(" ".join(sentences[at : end + 1]))) <= room:
            end += 1
        return " ".join(sentences[at:end])

    def joined(self, rng, draw, order, **labels):
        """A row of texts from `draw` that fill up some room, with `order`, if there is one, somewhere among them."""
        # The larger of two: long texts are the hard ones.
        room = int(rng.integers(*ROOM, 2).max()) - sum(len(self.encode(r.text)) for r in order)
        picked, misses = [], 0
        while misses < 2:
            row = draw()
            text = self.passage(row, rng, room)
            size = len(self.encode(text)) + 1
            if size > room:
                misses += 1
            else:
                picked.append((row, text))
                room -= size
        at = int(rng.integers(0, len(picked) + 1))
        picked[at:at] = [(r, r.text) for r in order]
        if not picked:
            return None
        rows = [r for r, _ in picked]
        attack = None if any(r.attack is None for r in rows) else max(r.attack for r in rows)
        labels = {"targets": {c: max(r.targets[c] for r in rows) for c in CATEGORIES}, "attack": attack,
                  "indirect": max(r.indirect for r in rows), **labels}
        text = ["\n", " ", " ", "\n\n"][rng.integers(4)].join(t for _, t in picked)
        return type(rows[0])(text, "mixture", **labels)

    def mixtures(self, rng):
        """Harmless lines joined until a window is full, and the same with a harmful line among them."""
        lines, plain = self.pools()
        good = [r for r in lines if r.severity == 0]
        near, ordinary = self.drawing([r for r in good if r.source not in PASSAGES], rng), self.drawing(plain, rng)
        prose = self.drawing([r for r in good if r.source in PASSAGES], rng)
        bad = self.drawing([r for r in lines if r.severity is not None and r.severity >= 4], rng)
        kinds = [near, prose, lambda: [near, near, prose, ordinary][rng.integers(4)]()]
        for n in range(MIXTURES):
            yield self.joined(rng, kinds[n % 3], [bad()] if rng.random() < TAINTED else [])

    def documents(self, rng):
        """Passages with an instruction to the model that reads them at the beginning, in the middle or at the end, and without."""
        lines, plain = self.pools()
        calm = [r for r in lines if r.severity == 0 and r.tag in ("indirect", "none", "hate")]
        calm += plain + [self.rows[i] for i in self.places["scikit-learn"] if len(self.rows[i].text) < 400]
        orders = [r for r in lines if r.indirect == 1]
        draw = self.drawing(calm, rng)
        order = self.drawing(orders, rng, np.array([(3.0 if r.tag == "indirect" else 1.0) * r.weight for r in orders]))
        for n in range(DOCUMENTS):
            some = [order()] if n % 2 else []
            labels = {"attack": some[0].attack if some else 0.0, "targets": dict.fromkeys(CATEGORIES, 0.0)}
            yield self.joined(rng, draw, some, **labels, indirect=float(bool(some)))

    def fragments(self, rng):
        """Beginnings of harmless lines, as a stream or a small `max_tokens` cuts them: harmless."""
        lines, plain = self.pools()
        draw = self.drawing([r for r in lines if r.severity == 0] + plain, rng)
        for _ in range(FRAGMENTS):
            words = self.passage(draw(), rng, 0).split()[: int(rng.integers(1, BEGINNING + 1))]
            yield type(lines[0])(" ".join(words), "fragment", targets=dict.fromkeys(CATEGORIES, 0.0), attack=0.0)

    def item(self, row, rng):
        if row is None:
            return None
        text, authored = row.text, row.source.startswith("authored")
        if row.source in PASSAGES and rng.random() < CUT:
            text = self.passage(row, rng, int(rng.integers(8, WINDOW)))
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
