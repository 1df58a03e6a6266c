"""Sentence embeddings as the service makes them: all-MiniLM-L6-v2, masked mean, L2, with a cache on disk."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

# The model was trained for 256 tokens; the service cuts its windows to the same length.
MAX_TOKENS = 256
BATCH_TOKENS = 4096


class Encoder:
    """Embeds texts; what was embedded once is read from `cache`."""

    def __init__(self, model, tokenizer, cache, threads=1):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.path = Path(cache)
        self.known = {}
        if self.path.exists():
            stored = np.load(self.path)
            self.known = dict(zip(stored["keys"].tolist(), stored["vectors"]))

    def embed(self, texts):
        """One row per text, [N, 384] float32."""
        keys = [hashlib.sha256(t.encode()).hexdigest() for t in texts]
        missing = {k: t for k, t in zip(keys, texts) if k not in self.known}
        if missing:
            self.compute(missing)
            self.save(missing)
        return np.stack([self.known[k] for k in keys])

    def ids(self, text):
        """Token ids without the special ones."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def embed_ids(self, rows):
        """One row per list of token ids, special tokens included."""
        keys = [hashlib.sha256(str(ids).encode()).hexdigest() for ids in rows]
        missing = {k: ids for k, ids in zip(keys, rows) if k not in self.known}
        self.known.update(self.batches(list(missing.items())))
        self.save(missing)
        return np.stack([self.known[k] for k in keys])

    def save(self, added):
        if added:
            names = sorted(self.known)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self.path, keys=np.array(names), vectors=np.stack([self.known[k] for k in names]))

    def compute(self, missing):
        coded = [(k, [101, *self.ids(t[:20000])[: MAX_TOKENS - 2], 102]) for k, t in missing.items()]
        self.known.update(self.batches(coded))

    def batches(self, coded):
        coded = sorted(coded, key=lambda item: len(item[1]))
        while coded:
            width, batch = 0, []
            while coded and max(width, len(coded[0][1])) * (len(batch) + 1) <= BATCH_TOKENS:
                batch.append(coded.pop(0))
                width = max(width, len(batch[-1][1]))
            ids = np.zeros((len(batch), width), np.int64)
            mask = np.zeros_like(ids)
            for row, (_, tokens) in enumerate(batch):
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            vectors = self.session.run(["sentence_embedding"], feed)[0]
            yield from ((k, v.astype(np.float32)) for (k, _), v in zip(batch, vectors))
