"""Makes imagenet-minilm.bin: a vector for each line of imagenet-classes.txt.

usage: make_class_vectors.py MODEL_DIR   (holds model.onnx and tokenizer.json of all-minilm-l6-v2)
needs: pip install numpy onnxruntime tokenizers
Each row: the scale as a little-endian float, then 384 numbers in 8 bits.
"""

import pathlib
import sys

import numpy as np
import onnxruntime
import tokenizers

here = pathlib.Path(__file__).parent
model_dir = pathlib.Path(sys.argv[1])
lines = (here / "imagenet-classes.txt").read_text(encoding="utf-8").splitlines()
classes = [line for line in lines if line and not line.startswith("#")]
assert len(classes) == 1000, len(classes)

tokenizer = tokenizers.Tokenizer.from_file(str(model_dir / "tokenizer.json"))
tokenizer.no_padding()
session = onnxruntime.InferenceSession(str(model_dir / "model.onnx"))
rows = []
for name in classes:
    encoding = tokenizer.encode(f"a photo of a {name}")
    inputs = {
        "input_ids": [encoding.ids],
        "attention_mask": [encoding.attention_mask],
        "token_type_ids": [encoding.type_ids],
    }
    inputs = {key: np.array(value, np.int64) for key, value in inputs.items()}
    vector = session.run(["sentence_embedding"], inputs)[0][0]
    scale = np.float32(np.abs(vector).max() / 127)
    rows.append(scale.tobytes() + np.rint(vector / scale).astype(np.int8).tobytes())
(here / "imagenet-minilm.bin").write_bytes(b"".join(rows))
