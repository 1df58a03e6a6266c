"""all-MiniLM-L6-v2 with low-rank adapters, forward and backward in numpy, and six scores read from its tokens.

One score per category of harm and one each for attacks in prompts and in documents. A score is a weighted sum over the
tokens: each output looks where it wants to (`look`) and reads what it finds there (`read`), so that one sentence of a long
text is heard. The base is frozen; adapters and outputs are all that is trained and kept. Numpy and not a framework: its
matrix products are the fast ones on a plain CPU, and a wheel of it is small.
"""

import numpy as np
from safetensors.numpy import load_file, save_file

OUTPUTS = ["hate", "self_harm", "sexual", "violence", "jailbreak", "indirect"]
CATEGORIES = OUTPUTS[:4]
HEADS, EPSILON, LAYERS, WIDTH = 12, 1e-12, 6, 384
RANK = 16
# The adapter's product counts ALPHA / RANK times.
ALPHA = 32
SCALE = ALPHA / RANK
QUERY, KEY, VALUE, JOIN, WIDE, BACK = PLACES = ["attention.self.query", "attention.self.key", "attention.self.value",
                                                "attention.output.dense", "intermediate.dense", "output.dense"]
# Of the last hidden states, what is left out while training.
DROP = 0.1
ROOT, CUBE = np.float32(np.sqrt(2 / np.pi)), np.float32(0.044715)


def load(path):
    """The frozen base, linear weights as [in, out]."""
    base = {k: v.astype(np.float32) for k, v in load_file(str(path)).items() if v.dtype != np.int64 and not k.startswith("pooler")}
    for k in base:
        if k.endswith("weight") and base[k].ndim == 2 and "embeddings" not in k:
            base[k] = np.ascontiguousarray(base[k].T)
    return base


def fresh(base, seed):
    """Adapters that change nothing yet, outputs that look everywhere alike."""
    rng = np.random.default_rng(seed)
    train = {}
    for layer in range(LAYERS):
        for place in PLACES:
            name = f"encoder.layer.{layer}.{place}"
            wide, out = base[name + ".weight"].shape
            train[name + ".a"] = (rng.normal(0, 1, (wide, RANK)) / np.sqrt(wide)).astype(np.float32)
            train[name + ".b"] = np.zeros((RANK, out), np.float32)
    n = len(OUTPUTS)
    train["look"] = np.zeros((WIDTH, n), np.float32)
    train["read"] = rng.normal(0, 0.02, (WIDTH, n)).astype(np.float32)
    train["bias"] = np.full(n, -1.0, np.float32)
    # Where low, medium and high lie on the axis of a category's score: -spread, 0, +spread.
    train["spread"] = np.full((len(CATEGORIES), 2), 1.5, np.float32)
    return train


def merged(base, train):
    """The base with the adapters folded in."""
    out = dict(base)
    for layer in range(LAYERS):
        for place in PLACES:
            name = f"encoder.layer.{layer}.{place}"
            out[name + ".weight"] = base[name + ".weight"] + (train[name + ".a"] @ train[name + ".b"]) * np.float32(SCALE)
    return out


def save(train, path):
    """As the model store reads it: half precision, the scale in `.b`."""
    tensors = {k: (v * SCALE if k.endswith(".b") else v).astype(np.float16) for k, v in train.items()}
    save_file(tensors, path, metadata={"base": "all-minilm-l6-v2", "outputs": ",".join(OUTPUTS)})


def saved(path):
    """What `save` wrote."""
    tensors = {k: v.astype(np.float32) for k, v in load_file(str(path)).items()}
    return {k: v / np.float32(SCALE) if k.endswith(".b") else v for k, v in tensors.items()}


def norm(x, w, name):
    x = x - x.mean(-1, keepdims=True)
    inverse = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    x *= inverse
    return x * w[name + ".weight"] + w[name + ".bias"], (x, inverse)


def norm_back(d, w, name, kept):
    x, inverse = kept
    d = d * w[name + ".weight"]
    return (d - d.mean(-1, keepdims=True) - x * (d * x).mean(-1, keepdims=True)) * inverse


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    """The usual approximation; where training needs it, its error is far below that of the data. And what `gelu_back` needs."""
    t = x * x
    t *= CUBE
    t += 1
    t *= x
    t *= ROOT
    np.tanh(t, out=t)
    t += 1
    t *= np.float32(0.5)
    return x * t, t


def gelu_back(d, x, t):
    """Of x t with t = (1 + tanh u) / 2: t + x t' with t' = 2 t (1 - t) u'."""
    slope = x * x
    slope *= 3 * CUBE
    slope += 1
    slope *= x
    slope *= 2 * ROOT
    slope *= t
    slope *= 1 - t
    slope += t
    slope *= d
    return slope


class Pass:
    """One batch forward, and back again. `w` are merged weights; `ids`, `mask` are [rows, tokens]."""

    def __init__(self, w, train, ids, mask, rng=None):
        self.w, self.train, self.mask = w, train, mask
        self.rows, self.tokens = ids.shape
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: self.tokens]
        x, _ = norm(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings.LayerNorm")
        x = x.reshape(-1, WIDTH)
        self.away = ((1 - mask) * np.float32(-1e9))[:, None, None, :]
        self.layers = []
        for layer in range(LAYERS):
            x = self.layer(x, f"encoder.layer.{layer}.")
        if rng is not None:
            self.kept = ((rng.random(x.shape, np.float32) >= DROP) / np.float32(1 - DROP)).astype(np.float32)
            x = x * self.kept
        self.x = x
        shape = (self.rows, self.tokens, -1)
        look = (x @ train["look"]).reshape(shape) - (1 - mask)[:, :, None] * np.float32(1e9)
        self.look = softmax(look.transpose(0, 2, 1))
        self.read = (x @ train["read"]).reshape(shape).transpose(0, 2, 1)
        self.scores = (self.look * self.read).sum(2) + train["bias"]

    def split(self, x):
        return x.reshape(self.rows, self.tokens, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3)

    def join(self, x):
        return x.transpose(0, 2, 1, 3).reshape(-1, WIDTH)

    def linear(self, x, name):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"]

    def layer(self, x, p):
        q, k, v = (self.split(self.linear(x, p + place)) for place in (QUERY, KEY, VALUE))
        a = softmax(q @ k.transpose(0, 1, 3, 2) * np.float32((WIDTH // HEADS) ** -0.5) + self.away)
        y = self.join(a @ v)
        middle, first = norm(x + self.linear(y, p + JOIN), self.w, p + "attention.output.LayerNorm")
        h = self.linear(middle, p + WIDE)
        g, t = gelu(h)
        out, second = norm(middle + self.linear(g, p + BACK), self.w, p + "output.LayerNorm")
        self.layers.append((p, x, q, k, v, a, y, middle, first, h, t, g, second))
        return out

    def back(self, d):
        """Gradients of what is trained, from those of the scores."""
        grads = {"bias": d.sum(0)}
        read, look = self.look * d[:, :, None], self.read * d[:, :, None]
        look = self.look * (look - (self.look * look).sum(2, keepdims=True))
        read, look = (g.transpose(0, 2, 1).reshape(-1, len(OUTPUTS)) for g in (read, look))
        grads["read"], grads["look"] = self.x.T @ read, self.x.T @ look
        d = (read @ self.train["read"].T + look @ self.train["look"].T) * getattr(self, "kept", 1)
        for kept in reversed(self.layers):
            d = self.layer_back(d, grads, *kept)
        return grads

    def linear_back(self, d, x, name, grads):
        a, b = self.train[name + ".a"], self.train[name + ".b"]
        grads[name + ".b"] = (x @ a).T @ d * np.float32(SCALE)
        grads[name + ".a"] = x.T @ (d @ b.T) * np.float32(SCALE)
        return d @ self.w[name + ".weight"].T

    def layer_back(self, d, grads, p, x, q, k, v, a, y, middle, first, h, t, g, second):
        d = norm_back(d, self.w, p + "output.LayerNorm", second)
        d = d + self.linear_back(gelu_back(self.linear_back(d, g, p + BACK, grads), h, t), middle, p + WIDE, grads)
        d = norm_back(d, self.w, p + "attention.output.LayerNorm", first)
        dy = self.split(self.linear_back(d, y, p + JOIN, grads))
        da = dy @ v.transpose(0, 1, 3, 2)
        da = a * (da - (da * a).sum(-1, keepdims=True)) * np.float32((WIDTH // HEADS) ** -0.5)
        parts = {QUERY: da @ k, KEY: da.transpose(0, 1, 3, 2) @ q, VALUE: a.transpose(0, 1, 3, 2) @ dy}
        return d + sum(self.linear_back(self.join(part), x, p + place, grads) for place, part in parts.items())


def sigmoid(x):
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def bce(s, y):
    return np.maximum(s, 0) - s * y + np.log1p(np.exp(-np.abs(s)))


def loss(scores, spread, batch):
    """The summed loss, its gradient by score and by spread. `target` in 0..1 and `weight` per output; a category with
    a `severity` (0, 2, 4, 6) is graded too, -1 is yes or no."""
    target, weight, grade = batch["target"], batch["weight"], batch["severity"]
    wide = np.maximum(spread, 0.3)
    d, value = (sigmoid(scores) - target) * weight, (bce(scores, target) * weight).sum()
    graded = np.where(grade >= 0, 0.3, 0.0).astype(np.float32) * weight[:, :4]
    low, high = scores[:, :4] + wide[:, 0], scores[:, :4] - wide[:, 1]
    d_low, d_high = (sigmoid(low) - (grade >= 2)) * graded, (sigmoid(high) - (grade >= 6)) * graded
    d[:, :4] += d_low + d_high
    value += ((bce(low, grade >= 2) + bce(high, grade >= 6)) * graded).sum()
    by_spread = np.stack([d_low.sum(0), -d_high.sum(0)], 1)
    return value, d.astype(np.float32), by_spread.astype(np.float32)
