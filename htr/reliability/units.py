"""Units of a promise: lines, words, fields or certificates. Their signals and scores are made from those of lines.

A table is a pa.Table or a mapping of columns. It has a row for each text, with these columns:

    signal_NAME                         a number, the signals of the text's line
    certificate, field                  names; needed for fields and certificates
    word_confidence, word_signal_NAME   lists, a value for each word
    line_signal_NAME, line_words        lists, a value for each line; line_words: how many words its reading has

The last two are null in rows of one line. They are there for a field whose lines have one transcription together, so
that the wrong line is not known; the signal_NAME of such a row are those of its least sure line.

A field is right if all its texts are, and a certificate if all its fields are. Their signals are made of the
probabilities of their lines: the product (the probability of all, if they were independent), the least one, and the
number of lines. The score of lines is fitted on rows of one line.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.reliability.calibration import OneSidedError, Score, cross_fitted, fit

CHARACTER = "character"  # the score of the share of right characters: it orders lines where CER is promised
PREFIX, WORD_PREFIX, LINE_PREFIX, LINE_WORDS = "signal_", "word_signal_", "line_signal_", "line_words"
OF_LINE = ("likelihood", "frames", "top_share", "language", "agreement")  # signals of a line that its words have too


def line_signals(table) -> dict[str, np.ndarray]:
    """-> (N,) values of each signal of the rows, by its name without prefix. Raises ValueError where there is none."""
    found = {name.removeprefix(PREFIX): column(table, name) for name in names_of(table) if name.startswith(PREFIX)}
    if not found:
        raise ValueError("a table without a column signal_NAME: were its lines read by an older version?")
    return found


def lines_of(table) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """-> (L,) values of each signal of the lines, by name, in the order of their rows; (L,) the row of each line."""
    own = line_signals(table)
    if LINE_WORDS not in names_of(table):
        return own, np.arange(len(next(iter(own.values()))))
    sizes = np.maximum(listed_in(table, LINE_WORDS)[0], 1)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    listed = sizes[rows] > 1
    found = {name: values[rows] for name, values in own.items()}
    for name, values in found.items():
        values[listed] = listed_in(table, LINE_PREFIX + name)[1]
    return found, rows


def lines_in(table) -> np.ndarray:
    """-> (N,) the number of lines of each row."""
    return np.bincount(lines_of(table)[1])


def units_among(unit: str, lines: np.ndarray) -> np.ndarray:
    """(N,) how many lines each row has (`lines_in`) -> (N,) bool: which rows a promise of this unit speaks of.

    A promise of lines is about single lines. It excludes a field whose lines have one text together: such a text is
    wrong if any of its lines is, and the threshold was not chosen for that.
    """
    return np.asarray(lines) == 1 if unit == "line" else np.ones(len(lines), bool)


def listed_in(table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists, or null -> (N,) their lengths, 0 for null; and their values one after the other.

    Raises ValueError where the column is missing.
    """
    if name not in names_of(table):
        raise ValueError(f"a table with {LINE_WORDS} and without {name}: were its rows read by different readers?")
    column = table[name]
    values = (
        column.combine_chunks() if isinstance(column, pa.ChunkedArray) else pa.array(column, pa.list_(pa.float64()))
    )
    sizes = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes, values.flatten().to_numpy(zero_copy_only=False).astype(np.float64)


def word_signals(table) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """-> (W,) values of each signal of the words, by name, with signals of their lines as line_NAME; (W,) their rows.

    Raises ValueError for a table without word_confidence, and where a row's lists have different lengths.
    """
    if "word_confidence" not in names_of(table):
        raise ValueError("a table without word_confidence: its reader does not say how sure it is of a word")
    lists = {"confidence": table["word_confidence"]}
    lists |= {n.removeprefix(WORD_PREFIX): table[n] for n in names_of(table) if n.startswith(WORD_PREFIX)}
    rows, found = None, {}
    for name, values in lists.items():
        values = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
        sizes = np.array([len(words) for words in values])
        if rows is not None and not np.array_equal(sizes, np.bincount(rows, minlength=len(values))):
            raise ValueError(f"word_signal_{name} has other numbers of words than word_confidence")
        rows = np.repeat(np.arange(len(values)), sizes)
        found[name] = np.array([value for words in values for value in words], np.float64)
    of_line, row = lines_of(table)
    words = np.bincount(rows, minlength=len(lists["confidence"]))[row]  # of each line that is alone in its row
    several = np.bincount(row)[row] > 1
    if several.any():
        words[several] = listed_in(table, LINE_WORDS)[1]
    line = np.repeat(np.arange(len(row)), words)
    return found | {f"line_{name}": of_line[name][line] for name in OF_LINE if name in of_line}, rows


def groups_of_unit(table, unit: str) -> np.ndarray:
    """-> (N,) the number of the field or certificate of each row, from 0 on."""
    groups = codes(table, "certificate")
    if unit == "field":
        fields = codes(table, "field")
        groups = groups * (int(fields.max(initial=0)) + 1) + fields
    return np.unique(groups, return_inverse=True)[1]


def combined(lines: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """(L,) probabilities of lines, (L,) numbers of their fields or certificates -> (G,) product, least, lines."""
    count = int(groups.max(initial=-1)) + 1
    least = least_of(lines, groups, count)
    product = np.exp(np.bincount(groups, np.log(np.maximum(lines, 1e-12)), count))
    return {"product": product, "least": least, "lines": np.bincount(groups, minlength=count).astype(np.float64)}


def least_of(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """(L,) values of lines, (L,) their rows -> (count,) the least value of each row; 1 for a row without lines."""
    least = np.ones(count)
    np.minimum.at(least, rows, values)
    return least


def all_right(right: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(N,) 1 for a right text, (N,) numbers of fields or certificates -> (G,) 1 where all texts of one are right."""
    return (np.bincount(groups, 1 - np.asarray(right, np.float64)) == 0).astype(np.float64)


def first_rows(groups: np.ndarray) -> np.ndarray:
    """(N,) numbers of groups -> (G,) the first row of each group."""
    return np.unique(groups, return_index=True)[1]


# ---------------------------------------------------------------------------------------------------- scores


def fit_scores(
    table,
    right: np.ndarray,
    edits: np.ndarray,
    characters: np.ndarray,
    clusters: np.ndarray,
    word_right: Sequence[Sequence[bool]] | None = None,
) -> tuple[dict[str, Score], dict[str, np.ndarray]]:
    """Fit the scores of all units that the table has.

    `table`: N texts. `right` (N,): 1 for a right text. `edits`, `characters` (N,): of each text, and of its reference.
    `clusters` (N,): writers or certificates. `word_right`: for each text, whether each of its words is right. -> the
    scores by unit; and by unit the probabilities that a promise is planned with: those of scores that were fitted
    without the unit's cluster, on the scale of the final score (for lines: a value a row).

    A unit is left out where its columns are missing, and where all are right or all wrong, or all outside one fold of
    clusters are. For lines this raises OneSidedError, a ValueError.
    """
    signals, row = lines_of(table)
    alone = (np.bincount(row) == 1).astype(np.float64)  # in a field of several lines the wrong one is not known
    given = ("line", signals, np.asarray(right, np.float64)[row], clusters[row], alone[row])
    scores, of_lines = {"line": fit(*given)}, cross_fitted(*given)
    held_out = {"line": least_of(of_lines, row, len(alone))}
    share = 1 - np.minimum(edits, characters) / np.maximum(characters, 1)
    written = np.maximum(characters, 1.0) * alone
    if both := fit_both(CHARACTER, signals, share[row], clusters[row], written[row]):
        scores[CHARACTER], held_out[CHARACTER] = both[0], least_of(both[1], row, len(alone))
    if word_right is not None and "word_confidence" in names_of(table):
        of_words, rows = word_signals(table)
        target = np.array([float(one) for words in word_right for one in words])
        if both := fit_both("word", of_words, target, clusters[rows]):
            scores["word"], held_out["word"] = both
    seen = {"line": probabilities(scores, table, "line")}
    seen |= {unit: probabilities(scores, table, unit) for unit in (CHARACTER, "word") if unit in scores}
    for unit in ("field", "certificate"):
        if "certificate" not in names_of(table) or (unit == "field" and "field" not in names_of(table)):
            continue
        groups = groups_of_unit(table, unit)
        whole, of_unit = all_right(right, groups), clusters[first_rows(groups)]
        # probabilities of lines from scores that have not seen them: otherwise a field would look better than it is
        made = combined(of_lines, groups[row])
        if not (both := fit_both(unit, made, whole, of_unit)):
            continue
        scores[unit], held_out[unit] = both
        seen[unit] = probabilities(scores, table, unit)[first_rows(groups)]
    return scores, {unit: on_scale_of(found, seen[unit]) for unit, found in held_out.items()}


def fit_both(unit: str, *given) -> tuple[Score, np.ndarray] | None:
    """The arguments of `fit` -> the score, and each row's probability by a score that was fitted without its cluster;
    None where nothing can be fitted.
    """
    try:
        return fit(unit, *given), cross_fitted(unit, *given)
    except OneSidedError:
        return None


def on_scale_of(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) values, (N,) others -> (N,) the others, sorted into the order of the values.

    Scores of parts of the data have more extreme values than the score of all. A threshold among those would accept
    nothing.
    """
    result = np.empty(len(values))
    result[np.argsort(values, kind="stable")] = np.sort(others)
    return result


def probabilities(scores: Mapping[str, Score], table, unit: str) -> np.ndarray:
    """(N,) the probability of each row: that of its least sure line, or of its field or certificate.

    "character": the least share of right characters among its lines. "word": (W,) the probabilities of all words, one
    row after the other. Raises ValueError for a unit without a score.
    """
    if unit not in scores:
        raise ValueError(f"no score of a {unit} here, only of {', '.join(scores)}")
    if unit == "word":
        return scores[unit].probability(word_signals(table)[0])
    signals, row = lines_of(table)
    if unit in ("line", CHARACTER):
        return least_of(scores[unit].probability(signals), row, int(row[-1]) + 1 if len(row) else 0)
    groups = groups_of_unit(table, unit)
    return scores[unit].probability(combined(scores["line"].probability(signals), groups[row]))[groups]


# ---------------------------------------------------------------------------------------------------- columns


def names_of(table) -> Sequence[str]:
    return getattr(table, "column_names", None) or list(table)


def column(table, name: str) -> np.ndarray:
    """(N,) float64, the numbers of a column. Raises ValueError where it is missing."""
    if name not in names_of(table):
        raise ValueError(f"a table without the column {name}")
    values = table[name]
    return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values, np.float64)


def codes(table, name: str) -> np.ndarray:
    """(N,) int64, equal numbers for equal texts of a column; null is "". Raises ValueError where it is missing."""
    if name not in names_of(table):
        raise ValueError(f"a table without the column {name}")
    values = table[name]
    if hasattr(values, "combine_chunks"):  # Arrow's own, many times as fast
        return values.fill_null("").combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    texts = np.array(["" if value is None else str(value) for value in values], dtype=str)
    return np.unique(texts, return_inverse=True)[1].astype(np.int64)
