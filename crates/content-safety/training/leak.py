"""Keeps evaluation out of training: nothing that is in an evaluation file, and nothing that nearly is.

usage: leak.py --wheels FOLDER   exits 1 when a line of the evaluation could reach the training
"""

import argparse
import math
import re
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import sources

EVALUATION = Path(__file__).parent / "evaluation"
# Texts that share this part of their runs of five characters are the same line in other clothes.
ALIKE = 0.8
# The closest pairs that the report names.
NEAR = 0.6


def plain(text):
    text = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"\W+", " ", text).strip()


def grams(text):
    text = plain(text)
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def evaluation():
    """Texts of every evaluation file, and of the packaged splits that are for testing."""
    lines = []
    for path in sorted(EVALUATION.glob("*.tsv")) + [sources.AUTHORED / "smoke.tsv"]:
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                lines.append(line.split("\t")[-1])
    return lines


class Index:
    """Finds the line that shares most of its runs with a text, if that is at least `least`."""

    def __init__(self, lines, least):
        self.least, self.lines, self.grams, self.where = least, lines, [grams(t) for t in lines], {}
        self.exact = {plain(t): i for i, t in enumerate(lines)}
        self.count = Counter(gram for own in self.grams for gram in own)
        for i, own in enumerate(self.grams):
            for gram in self.rare(own):
                self.where.setdefault(gram, []).append(i)

    def rare(self, own):
        """Two sets that share `least` of their union share one of these: the rarest, in one order for all sets."""
        return sorted(own, key=lambda gram: (self.count[gram], gram))[: len(own) - math.ceil(self.least * len(own)) + 1]

    def nearest(self, text):
        if plain(text) in self.exact:
            return 1.0, self.exact[plain(text)]
        own = grams(text)
        found = {i for gram in self.rare(own) for i in self.where.get(gram, [])}
        return max(((len(own & self.grams[i]) / len(own | self.grams[i]), i) for i in found), default=(0.0, -1))


def without_evaluation(rows):
    """Rows that may be used, and those that may not: test splits stay with the evaluation and take their twins along."""
    index = Index(evaluation() + [r.text for r in rows if r.split == "test" and len(r.text) < 2000], ALIKE)
    kept, dropped = [], []
    for row in rows:
        if row.split == "test":
            continue
        (dropped if index.nearest(row.text[:4000])[0] > ALIKE else kept).append(row)
    return kept, dropped


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, required=True)
    args = parser.parse_args()
    rows = sources.authored() + sources.authored(sources.HELD_OUT) + sources.packaged(sources.Wheels(args.wheels))
    kept, dropped = without_evaluation(rows)
    index = Index(evaluation(), NEAR)
    close = sorted(((*index.nearest(r.text[:4000]), r.text) for r in kept), reverse=True)
    leaks = [c for c in close if c[0] > ALIKE]
    print(f"{len(index.lines)} lines of the evaluation against {len(kept)} rows of the training; {len(dropped)} rows excluded")
    for score, i, text in [c for c in close if c[0] > NEAR][:20]:
        print(f"  near {score:.2f}: {index.lines[i]!r} ~ {text[:120]!r}")
    print(f"{len(leaks)} leaks")
    sys.exit(1 if leaks else 0)


if __name__ == "__main__":
    main()
