"""Character confusions by class: substitutions, insertions and deletions from rapidfuzz, for whole lists of texts."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

CLASSES = ("letters", "capitals", "accents", "digits", "punctuation", "space")
UNKNOWN_CLASS = 255
CLASS_OF = np.full(0x110000, UNKNOWN_CLASS, np.uint8)  # class_of each character, as far as it was met


def class_of(character: str) -> int:
    """The bits of CLASSES that a character has; É is a letter, a capital and has an accent."""
    kind = unicodedata.category(character)
    bits = (
        kind[0] in "LM",
        kind in ("Lu", "Lt"),
        kind[0] == "L" and len(unicodedata.normalize("NFD", character)) > 1,
        kind == "Nd",
        kind[0] in "PS",
        character.isspace(),
    )
    return sum(bit << place for place, bit in enumerate(bits))


def counted(
    references: Sequence[str], hypotheses: Sequence[str], differ: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], int]]:
    """N texts, (N,) which pairs are not equal -> by line substitutions, insertions, deletions, of_CLASS and
    missed_CLASS (replaced or deleted); and how often which character of a reference was read as which, "" for none.
    """
    kinds: dict[str, list[tuple[int, int, int]]] = {"replace": [], "insert": [], "delete": []}
    for line in np.flatnonzero(differ).tolist():
        for kind, at, to in Levenshtein.editops(references[line], hypotheses[line]).as_list():
            kinds[kind].append((line, at, to))
    replace, insert, delete = (np.array(kinds[kind], np.int64).reshape(-1, 3) for kind in kinds)
    lines, (text, start, lengths), (read, read_start, _) = len(references), joined(references), joined(hypotheses)
    columns = {
        name: np.bincount(edits[:, 0], minlength=lines)
        for name, edits in (("substitutions", replace), ("insertions", insert), ("deletions", delete))
    }
    gone = np.concatenate([replace, delete])
    bits, owner = classes_of(text), np.repeat(np.arange(lines), lengths)
    missed = bits[start[gone[:, 0]] + gone[:, 1]]
    for place, name in enumerate(CLASSES):
        columns[f"of_{name}"] = np.bincount(owner[bits >> place & 1 == 1], minlength=lines)
        columns[f"missed_{name}"] = np.bincount(gone[missed >> place & 1 == 1, 0], minlength=lines)
    asked = text[start[gone[:, 0]] + gone[:, 1]]
    come = np.concatenate([replace, insert])
    got = read[read_start[come[:, 0]] + come[:, 2]]
    ones = np.concatenate([asked, np.full(len(insert), -1)])  # replaced, deleted, inserted
    others = np.concatenate([got[: len(replace)], np.full(len(delete), -1), got[len(replace) :]])
    return columns, tallied(ones, others)


def joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (characters,) int32, the code points of all texts one after the other; (N,) where each text begins; (N,) its
    length."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    return codes, np.cumsum(lengths) - lengths, lengths


def classes_of(codes: np.ndarray) -> np.ndarray:
    """(n,) code points -> (n,) the bits of their classes, as class_of gives them."""
    for code in np.unique(codes[CLASS_OF[codes] == UNKNOWN_CLASS]).tolist():
        CLASS_OF[code] = class_of(chr(code))
    return CLASS_OF[codes]


def tallied(ones: np.ndarray, others: np.ndarray) -> dict[tuple[str, str], int]:
    """Pairs of code points, -1 for "no character" -> how often each pair occurs."""
    pairs, counts = np.unique((ones + 1) << 32 | (others + 1), return_counts=True)
    found = {}
    for pair, number in zip(pairs.tolist(), counts.tolist(), strict=True):
        one, other = (chr(code - 1) if code else "" for code in (pair >> 32, pair & 0xFFFFFFFF))
        found[one, other] = number
    return found
