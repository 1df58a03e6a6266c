"""Small heads on frozen embeddings: an ensemble of one-hidden-layer networks, fitted with numpy and exported to ONNX.

The members are averaged before the sigmoid, and an average of such networks is one wider network of the same kind, so
the exported graph is Gemm, Relu, Gemm, Sigmoid however many members there are.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 384
# The entries of a unit vector of 384 are about 0.05; scaled to about 1 the usual step sizes fit. Folded into the export.
SCALE = 20.0


class Head:
    """`outputs` scores of one embedding."""

    def __init__(self, hidden, outputs, members=5, epochs=20, decay=5e-3, dropout=0.5, noise=0.0, seed=7):
        self.hidden, self.outputs, self.members = hidden, outputs, members
        self.epochs, self.decay, self.dropout, self.noise, self.seed = epochs, decay, dropout, noise, seed
        self.parts = []

    def fit(self, x, y, mask, weight):
        """`y`, `mask`: [N, outputs]; `weight`: [N]. Targets may be anything in 0..1."""
        self.parts = [self.member(x * SCALE, y, mask * weight[:, None], self.seed + m) for m in range(self.members)]
        return self

    def member(self, x, y, w, seed):
        rng = np.random.default_rng(seed)
        shapes = [(WIDTH, self.hidden), (self.hidden,), (self.hidden, self.outputs), (self.outputs,)]
        p = [rng.normal(0, np.sqrt(2.0 / s[0]), s) if len(s) == 2 else np.zeros(s) for s in shapes]
        p = [a.astype(np.float32) for a in p]
        m, v = [np.zeros_like(a) for a in p], [np.zeros_like(a) for a in p]
        step, batch = 0, 256
        total = self.epochs * (len(x) // batch + 1)
        for _ in range(self.epochs):
            order = rng.permutation(len(x))
            for at in range(0, len(x), batch):
                rows = order[at : at + batch]
                grads = self.gradients(p, x[rows], y[rows], w[rows], rng)
                step += 1
                rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / total))
                for i, g in enumerate(grads):
                    m[i] = 0.9 * m[i] + 0.1 * g
                    v[i] = 0.999 * v[i] + 0.001 * g * g
                    a = m[i] / (1 - 0.9**step)
                    b = v[i] / (1 - 0.999**step)
                    p[i] -= rate * (a / (np.sqrt(b) + 1e-8) + (self.decay * p[i] * 10 if p[i].ndim == 2 else 0))
        return p

    def gradients(self, p, x, y, w, rng):
        if self.noise:
            # Texts that mean the same lie near each other: noise teaches the head to be smooth there.
            x = x + rng.normal(0, self.noise, x.shape).astype(np.float32)
        h = np.maximum(x @ p[0] + p[1], 0)
        keep = (rng.random(h.shape) > self.dropout) / (1 - self.dropout)
        h = (h * keep).astype(np.float32)
        s = sigmoid(h @ p[2] + p[3])
        d = (s - y) * w / len(x)
        dh = (d @ p[2].T) * (h > 0) * keep
        return [x.T @ dh, dh.sum(0), h.T @ d, d.sum(0)]

    def scores(self, x):
        logits = [np.maximum(x * SCALE @ p[0] + p[1], 0) @ p[2] + p[3] for p in self.parts]
        return sigmoid(np.mean(logits, axis=0))

    def export(self, path, name, metadata):
        w1 = np.concatenate([p[0] for p in self.parts], 1) * SCALE
        b1 = np.concatenate([p[1] for p in self.parts])
        w2 = np.concatenate([p[2] for p in self.parts]) / self.members
        b2 = np.mean([p[3] for p in self.parts], axis=0)
        # The large matrix is stored in half precision: half the bytes, and scores move by less than 0.001.
        tensors = [numpy_helper.from_array(np.ascontiguousarray(w1, np.float16), "w1_half")]
        tensors += [numpy_helper.from_array(np.ascontiguousarray(a, np.float32), n) for n, a in [("b1", b1), ("w2", w2), ("b2", b2)]]
        nodes = [helper.make_node("Cast", ["w1_half"], ["w1"], to=TensorProto.FLOAT),
                 helper.make_node("Gemm", ["embedding", "w1", "b1"], ["hidden"]),
                 helper.make_node("Relu", ["hidden"], ["active"]),
                 helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
                 helper.make_node("Sigmoid", ["logits"], ["scores"])]
        graph = helper.make_graph(
            nodes, name,
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", self.outputs])], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=name)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))
