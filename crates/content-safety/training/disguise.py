"""The ways in which people write a word so that a filter misses it; each a function of a text and a random generator."""

import base64
from urllib.parse import quote

LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
SIGNS = {"a": "@", "s": "$", "i": "!", "e": "3", "o": "0"}
ALIKE = {"a": "а", "c": "с", "e": "е", "i": "і", "o": "о", "p": "р", "s": "ѕ", "x": "х", "y": "у", "A": "А", "B": "В", "E": "Е",
         "H": "Н", "I": "І", "K": "К", "M": "М", "O": "О", "P": "Р", "S": "Ѕ", "T": "Т", "X": "Х"}


def swapped(text, table, rng, part):
    return "".join(table[c] if c in table and rng.random() < part else c for c in text)


def leet(text, rng):
    return swapped(text, LEET, rng, 0.7)


def signs(text, rng):
    return swapped(text, SIGNS, rng, 0.7)


def alike(text, rng):
    return swapped(text, ALIKE, rng, 0.6)


def wide(text, rng):
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def zero_width(text, rng):
    return "".join(c + ("\u200b\u200c\u2060"[rng.integers(3)] if c.isalpha() and rng.random() < 0.4 else "") for c in text)


def spaced(text, rng):
    """Letters of the longer words apart, two spaces between words."""
    return "  ".join(" ".join(w) if len(w) > 3 and w.isalpha() else w for w in text.split(" "))


def dotted(text, rng):
    return " ".join(".".join(w) if len(w) > 3 and w.isalpha() else w for w in text.split(" "))


def shouted(text, rng):
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def coded(text, rng):
    return base64.b64encode(text.encode()).decode()


def percent(text, rng):
    return quote(text, safe="")


KINDS = {"leetspeak": leet, "signs": signs, "homoglyphs": alike, "full width": wide, "zero width": zero_width, "spaced": spaced,
         "dotted": dotted, "random case": shouted, "base64": coded, "percent": percent}
# What an epoch may do to a line: the tokenizer still sees something of it.
MILD = [leet, leet, signs, signs, alike, spaced, dotted, zero_width]


def any_of(text, rng):
    return MILD[rng.integers(len(MILD))](text, rng)
