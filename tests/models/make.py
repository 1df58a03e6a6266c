"""Makes the tiny ONNX models of the tests, and the catalog that lists them: `python make.py` with numpy and onnx installed.

tiny-clip  An image half and a text half in one space of 4 numbers, shaped as exporters shape a CLIP pair: open image size,
           `pixel_values` -> `image_embeds`, `input_ids` and `attention_mask` -> `text_embeds`, not normalised. It knows
           colours: an image's vector is its mean colour, a text's is the mean of its words' colours, both turned by the same
           random matrix.
tiny-bert  A text model with a vector per token (`last_hidden_state`), in which each token also sees the mean of all real
           ones, so that a wrong mask or wrong pooling shows.

The same bytes on every run with the same versions; made with numpy 2.4.6 and onnx 1.23.2.
"""
import hashlib
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

HERE = pathlib.Path(__file__).parent
COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "white": (1, 1, 1)}
CLIP_WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "photo", "of", *COLOURS]
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat", "dog", "ran", "query", "passage", ":"]
WIDTH = 4
RANDOM = np.random.default_rng(7)
TURN = RANDOM.normal(size=(3, WIDTH)).astype(np.float32)


def save(path, nodes, inputs, outputs, weights):
    weights = [nh.from_array(value, name) for name, value in weights.items()]
    graph = h.make_graph(nodes, path.parent.name, inputs, outputs, weights)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8, producer_name="tests")
    onnx.checker.check_model(model)
    onnx.save(model, path)


def tokenizer(path, words, pad, unknown, begin, end):
    ids = {word: index for index, word in enumerate(words)}
    special = [
        {"id": ids[w], "content": w, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for w in (pad, unknown, begin, end)
    ]
    template = [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    content = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": pad},
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": {w: {"id": w, "ids": [ids[w]], "tokens": [w]} for w in (begin, end)},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": unknown},
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def tensor(name, kind, *dims):
    return h.make_tensor_value_info(name, kind, list(dims))


def masked_mean(embedded, out, weights):
    """Nodes from `embedded` [b, s, w] and `attention_mask` to its mean over real tokens, [b, 1, w]."""
    weights["two"] = np.array([2], np.int64)
    weights["one"] = np.array([1], np.int64)
    return [
        h.make_node("Cast", ["attention_mask"], ["mask_float"], to=T.FLOAT),
        h.make_node("Unsqueeze", ["mask_float", "two"], ["mask"]),
        h.make_node("Mul", [embedded, "mask"], ["real"]),
        h.make_node("ReduceSum", ["real", "one"], ["sum"], keepdims=1),
        h.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        h.make_node("Div", ["sum", "count"], [out]),
    ]


def clip(folder):
    folder.mkdir(exist_ok=True)
    nodes = [
        h.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
        h.make_node("Flatten", ["pooled"], ["colour"]),
        h.make_node("MatMul", ["colour", "turn"], ["image_embeds"]),
    ]
    pixels = tensor("pixel_values", T.FLOAT, "batch", 3, "height", "width")
    save(folder / "vision.onnx", nodes, [pixels], [tensor("image_embeds", T.FLOAT, "batch", WIDTH)], {"turn": TURN})
    table = np.zeros((len(CLIP_WORDS), WIDTH), np.float32)
    for word, colour in COLOURS.items():
        table[CLIP_WORDS.index(word)] = np.array(colour, np.float32) @ TURN
    weights = {"table": table}
    nodes = [h.make_node("Gather", ["table", "input_ids"], ["embedded"])]
    nodes += masked_mean("embedded", "mean", weights)
    nodes.append(h.make_node("Squeeze", ["mean", "one"], ["text_embeds"]))
    texts = [tensor(name, T.INT64, "batch", "sequence") for name in ("input_ids", "attention_mask")]
    save(folder / "text.onnx", nodes, texts, [tensor("text_embeds", T.FLOAT, "batch", WIDTH)], weights)
    tokenizer(folder / "tokenizer.json", CLIP_WORDS, "<pad>", "<unk>", "<s>", "</s>")


def bert(folder):
    folder.mkdir(exist_ok=True)
    weights = {"table": RANDOM.normal(size=(len(BERT_WORDS), WIDTH)).astype(np.float32), "types": np.zeros((2, WIDTH), np.float32)}
    nodes = [
        h.make_node("Gather", ["table", "input_ids"], ["words"]),
        h.make_node("Gather", ["types", "token_type_ids"], ["kinds"]),
        h.make_node("Add", ["words", "kinds"], ["embedded"]),
        *masked_mean("embedded", "mean", weights),
        h.make_node("Add", ["embedded", "mean"], ["last_hidden_state"]),
    ]
    texts = [tensor(name, T.INT64, "batch", "sequence") for name in ("input_ids", "attention_mask", "token_type_ids")]
    save(folder / "model.onnx", nodes, texts, [tensor("last_hidden_state", T.FLOAT, "batch", "sequence", WIDTH)], weights)
    tokenizer(folder / "tokenizer.json", BERT_WORDS, "[PAD]", "[UNK]", "[CLS]", "[SEP]")


def entry(name, task, files, capabilities):
    lines = [
        "[[model]]", f'name = "{name}"', 'version = "1"', f'task = "{task}"', 'engine = "onnx"', 'license = "Apache-2.0"',
        'publisher = "tests"', f"capabilities = {{ {capabilities} }}", "[[model.source]]", 'kind = "file"',
        "files = [" + ", ".join(f'{{ from = "{name}/{path}" }}' for _, path in files) + "]",
    ]
    for role, path in files:
        content = (HERE / name / path).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines += ["[[model.file]]", f'role = "{role}"', f'path = "{path}"', f'sha256 = "{digest}"', f"bytes = {len(content)}"]
    return "\n".join(lines) + "\n"


clip(HERE / "tiny-clip")
bert(HERE / "tiny-bert")
image = "image = { size = 8, mean = [0, 0, 0], std = [255, 255, 255] }"
prefixes = 'prefixes = { query = "query: ", document = "passage: " }'
text = [
    "# The tiny models of the tests, written by make.py.\n",
    entry(
        "tiny-clip", "image-embeddings",
        [("vision_model", "vision.onnx"), ("text_model", "text.onnx"), ("tokenizer", "tokenizer.json")],
        f'dimensions = [4], input_types = ["text"], max_tokens = 8, normalize = true, {image}',
    ),
    entry(
        "tiny-bert", "embeddings", [("model", "model.onnx"), ("tokenizer", "tokenizer.json")],
        f'dimensions = [4, 2], input_types = ["text", "query", "document"], max_tokens = 8, pooling = "mean", normalize = true, {prefixes}',
    ),
]
(HERE / "catalog.toml").write_text("\n".join(text))
