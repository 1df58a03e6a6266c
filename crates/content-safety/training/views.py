"""Token windows of a text, as `src/classify.rs` cuts them (without the unmasking of `src/normalise.rs`)."""

WHOLE, WHOLE_OVERLAP = 256, 64
PASSAGE, PASSAGE_OVERLAP = 64, 16
BEGIN, END = 101, 102


def windows(ids, most, overlap):
    size = most - 2
    step = size - min(overlap, size // 2)
    out, start = [], 0
    while True:
        end = min(start + size, len(ids))
        out.append([BEGIN, *ids[start:end], END])
        if end == len(ids):
            return out
        start += step


def views(tokenizer, text, passages=True):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    out = windows(ids, WHOLE, WHOLE_OVERLAP)
    if passages and (len(out) > 1 or len(out[0]) > PASSAGE):
        out += windows(ids, PASSAGE, PASSAGE_OVERLAP)
    return out
