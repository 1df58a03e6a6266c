"""Fits the adapter, low-rank changes of all-MiniLM-L6-v2 and six scores, and finds where severities begin.

usage: train.py --wheels FOLDER --base model.safetensors --tokenizer tokenizer.json [--model model.onnx] [--epochs N] [--from ADAPTER]
Deterministic: fixed seeds, pinned versions (requirements.txt), one process. See README.md.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

# Two halves of a batch run beside each other, each in one thread, so that sums come out the same everywhere.
for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import numpy as np
from tokenizers import Tokenizer

import calibrate
import leak
import minilm
import sources
from batches import Feeder

SEED = 7
EPOCHS = 8
# Peak step sizes of adapters and of the outputs; warm-up as a part of all steps; decay of weights.
RATE, OUTPUT_RATE, WARM, DECAY = 8e-4, 3e-3, 0.06, 0.01
# What is learnt already is moved more gently: part of the step sizes of a run that goes on from an adapter.
AGAIN = 0.5
# Rows that one step counts as: batches hold a constant number of tokens, so short texts come many at once.
STEP_ROWS = 48.0
LONGEST = 1.0


class Adam:
    """Adam with decoupled decay of the adapters and gradients cut to a length."""

    def __init__(self, train):
        self.train, self.count = train, 0
        self.first = {k: np.zeros_like(v) for k, v in train.items()}
        self.second = {k: np.zeros_like(v) for k, v in train.items()}

    def step(self, grads, rate):
        length = float(np.sqrt(sum(float((g * g).sum()) for g in grads.values())))
        factor = np.float32(min(1.0, LONGEST / (length + 1e-6)))
        self.count += 1
        for name, g in grads.items():
            g = g * factor
            self.first[name] += np.float32(0.1) * (g - self.first[name])
            self.second[name] += np.float32(0.01) * (g * g - self.second[name])
            move = self.first[name] / (1 - 0.9**self.count) / (np.sqrt(self.second[name] / (1 - 0.99**self.count)) + 1e-8)
            adapter = name.endswith((".a", ".b"))
            if adapter:
                move = move + DECAY * self.train[name]
            self.train[name] = (self.train[name] - (RATE if adapter else OUTPUT_RATE) * rate * move).astype(np.float32)


def half(w, train, batch, seed):
    rng = np.random.default_rng(seed)
    run = minilm.Pass(w, train, batch["ids"], batch["mask"], rng)
    value, d, by_spread = minilm.loss(run.scores, train["spread"], batch)
    return value, {**run.back(d / np.float32(STEP_ROWS)), "spread": by_spread / np.float32(STEP_ROWS)}


def fit(base, feeder, epochs, path, begin, log):
    train = minilm.saved(begin) if begin else minilm.fresh(base, SEED)
    most = AGAIN if begin else 1.0
    adam, done, began = Adam(train), 0, time.time()
    total = epochs * len(feeder.epoch(0))
    with ThreadPoolExecutor(2) as pool:
        for epoch in range(epochs):
            values, rows = [], 0
            for batch in feeder.epoch(epoch):
                part = min(done / total, 1.0)
                rate = part / WARM if part < WARM else 0.5 * (1 + np.cos(np.pi * (part - WARM) / (1 - WARM)))
                w, size = minilm.merged(base, train), len(batch["ids"])
                cuts = [slice(0, (size + 1) // 2), slice((size + 1) // 2, size)]
                parts = [{k: v[c] for k, v in batch.items()} for c in cuts if c.start < c.stop]
                got = list(pool.map(lambda n: half(w, train, parts[n], [SEED, done, n]), range(len(parts))))
                adam.step({k: sum(g[k] for _, g in got) for k in got[0][1]}, most * rate)
                values.append(sum(v for v, _ in got))
                rows += size
                done += 1
                if done % 25 == 0:
                    log(f"step {done} of {total}, {time.time() - began:.0f} s, loss {sum(values) / rows:.4f}")
            log(f"epoch {epoch + 1}: {rows} rows, loss {sum(values) / rows:.4f}")
            minilm.save(train, path)
    return train


def main():
    here = Path(__file__).parent
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=here.parents[1] / "model-store/data/koine-safety.safetensors")
    parser.add_argument("--manifest", type=Path, default=here.parent / "models/manifest.json")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--from", type=Path, dest="begin", help="go on from this adapter instead of from the base")
    parser.add_argument("--model", type=Path, help="find the scales of this model.onnx, made from --adapter, and fit nothing")
    args = parser.parse_args()
    log = partial(print, flush=True)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = sources.authored() + sources.packaged(sources.Wheels(args.wheels))
    held, _ = leak.without_evaluation(sources.authored(sources.HELD_OUT))
    rows, dropped = leak.without_evaluation(rows)
    log(f"{len(rows)} rows; {len(dropped)} left out because they are or resemble lines of the evaluation")
    fitted, kept = calibrate.split(rows, held)
    base = minilm.load(args.base)
    if not args.model:
        fit(base, Feeder(fitted, tokenizer, SEED), args.epochs, args.adapter, args.begin, log)
        # In half precision, because that is what is published.
        train = minilm.saved(args.adapter)
        scorer = calibrate.Scorer(calibrate.Arrays(base, train), tokenizer)
    else:
        train = minilm.saved(args.adapter)
        scorer = calibrate.Scorer(calibrate.Graph(args.model), tokenizer)
    manifest = calibrate.manifest(kept, scorer, train["spread"], log)
    args.manifest.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
