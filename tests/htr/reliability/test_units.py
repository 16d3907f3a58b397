"""Lines to words, fields and certificates."""

import evaluated
import numpy as np
import pyarrow as pa
import pytest

from htr.reliability.calibration import Feature, OneSidedError, Score, cross_fitted, fit
from htr.reliability.units import (
    all_right,
    codes,
    combined,
    first_rows,
    fit_scores,
    groups_of_unit,
    line_signals,
    lines_in,
    lines_of,
    probabilities,
    word_signals,
)

TABLE = evaluated.lines(0, 300)
MERGED = evaluated.merged(TABLE)
EXACT = TABLE["exact"].to_numpy().astype(float)
WORDS = [[bool(e)] * 3 for e in EXACT]


def fitted(table: pa.Table = TABLE, **options):
    columns = [table[name].to_numpy().astype(float) for name in ("exact", "edits", "characters")]
    return fit_scores(table, *columns, codes(table, "certificate"), **options)


def test_a_field_is_right_when_all_its_lines_are():
    groups = np.array([0, 0, 1, 2, 2, 2])
    assert all_right([1, 0, 1, 1, 1, 1], groups).tolist() == [0, 1, 1]
    found = combined(np.array([0.9, 0.5, 0.8, 0.9, 0.9, 0.7]), groups)
    assert found["product"] == pytest.approx([0.45, 0.8, 0.567]) and found["least"].tolist() == [0.5, 0.8, 0.7]
    assert found["lines"].tolist() == [2, 1, 3]


def test_fields_and_certificates_are_told_apart_by_their_names():
    table = {"certificate": ["a", "a", "b", "a"], "field": ["Ia", "II", "Ia", "Ia"]}
    for columns in (table, pa.table(table)):
        field, certificate = groups_of_unit(columns, "field"), groups_of_unit(columns, "certificate")
        assert field[0] == field[3] and len(set(field)) == 3
        assert certificate[0] == certificate[1] == certificate[3] != certificate[2]
    assert codes(pa.table({"x": ["", None, "y"]}), "x").tolist() == [0, 0, 1]


def test_every_unit_gets_a_score_that_is_right_on_average():
    scores, held_out = fitted(word_right=WORDS)
    assert set(scores) == set(held_out) == {"line", "character", "word", "field", "certificate"}
    other = evaluated.lines(1, 300, name="o")
    exact = other["exact"].to_numpy().astype(float)
    for unit in ("line", "field", "certificate"):
        found = probabilities(scores, other, unit)
        groups = np.arange(len(other)) if unit == "line" else groups_of_unit(other, unit)
        right = all_right(exact, groups)
        assert len(found) == len(other) and all(len(set(found[groups == g])) == 1 for g in range(5))
        assert found[np.unique(groups, return_index=True)[1]].mean() == pytest.approx(right.mean(), abs=0.06)
    assert len(probabilities(scores, other, "word")) == 3 * len(other)
    # a field of two lines is less sure than its lines
    lines = probabilities(scores, other, "line")
    assert probabilities(scores, other, "certificate").mean() < lines.mean() - 0.1


def test_a_unit_whose_right_ones_are_all_of_one_cluster_is_left_out():
    """Without that cluster nothing can be fitted; the other units have their scores all the same."""
    certificates, exact = codes(TABLE, "certificate"), EXACT.copy()
    exact[certificates == 0] = 1
    exact[first_rows(certificates)[1:]] = 0
    edits, characters = 1 - exact, TABLE["characters"].to_numpy().astype(float)
    scores, held_out = fit_scores(TABLE, exact, edits, characters, certificates)
    assert set(scores) == set(held_out) >= {"line", "field"} and "certificate" not in scores
    exact[certificates > 0] = 0
    with pytest.raises(OneSidedError, match=r"all right or all wrong.*, when one fold of 5 is held out"):
        fit_scores(TABLE, exact, 1 - exact, characters, certificates)


def test_the_score_of_fields_is_fitted_on_what_is_said_of_lines_not_seen():
    """By scores of lines that were fitted without them: else a field would look better than it is."""
    scores, held_out = fitted()
    clusters = codes(TABLE, "certificate")
    of_lines = cross_fitted("line", line_signals(TABLE), EXACT, clusters)

    def order(values):  # held-out probabilities are put on the scale of the score of all, in their own order
        return np.argsort(values, kind="stable")

    assert np.array_equal(order(held_out["line"]), order(of_lines))
    for unit in ("field", "certificate"):
        groups = groups_of_unit(TABLE, unit)
        given = unit, combined(of_lines, groups), all_right(EXACT, groups), clusters[first_rows(groups)]
        assert np.array_equal(scores[unit].weights, fit(*given).weights)
        assert np.array_equal(order(held_out[unit]), order(cross_fitted(*given)))


def test_the_order_of_rows_makes_no_difference_to_what_is_said_of_each():
    """Lines of a certificate need not stand together, nor the hard ones be spread evenly."""
    scores, _ = fitted(word_right=WORDS)
    for table in (TABLE, MERGED):
        for order in (np.argsort(table["confidence"].to_numpy()), np.random.default_rng(0).permutation(len(table))):
            for unit in ("line", "character", "field", "certificate"):
                found = probabilities(scores, table, unit)
                assert np.allclose(probabilities(scores, table.take(order), unit), found[order])
            words, row = probabilities(scores, table, "word"), word_signals(table)[1]
            moved, to = probabilities(scores, table.take(order), "word"), word_signals(table.take(order))[1]
            for place in range(0, len(order), 7):
                assert np.allclose(moved[to == place], words[row == order[place]])


def test_the_line_that_is_least_sure_is_so_by_its_probability_not_by_one_signal():
    """The line of the least likelihood has the best frames: the other one is likelier to be wrong."""
    features = tuple(Feature(name, "logit", -9.0, 9.0, ()) for name in ("likelihood", "frames"))
    score = Score("line", features, np.zeros(2), np.ones(2), np.array([0.2, 1.0]), 0.0, 1.0)
    table = {
        "signal_likelihood": [0.3, 0.5],
        "signal_frames": [0.9, 0.5],
        "line_signal_likelihood": [[0.3, 0.8], None],
        "line_signal_frames": [[0.9, 0.6], None],
        "line_words": [[1, 2], None],
    }
    odds = (3 / 7) ** 0.2 * 9, 4**0.2 * 1.5
    assert odds[1] < odds[0]
    found = probabilities({"line": score}, table, "line")
    assert found == pytest.approx([odds[1] / (1 + odds[1]), 0.5])


def test_what_a_table_lacks_is_left_out_or_named():
    bare = TABLE.select(["signal_likelihood", "signal_frames"])
    columns = [TABLE[name].to_numpy().astype(float) for name in ("exact", "edits", "characters")]
    scores, _ = fit_scores(bare, *columns, codes(TABLE, "certificate"), word_right=WORDS)
    assert set(scores) == {"line", "character"}
    with pytest.raises(ValueError, match="no score of a field here, only of line, character"):
        probabilities(scores, bare, "field")
    with pytest.raises(ValueError, match="the signal 'frames' is missing, and"):
        probabilities(scores, bare.select(["signal_likelihood"]), "line")
    with pytest.raises(ValueError, match="without a column signal_NAME"):
        line_signals(TABLE.select(["exact"]))
    with pytest.raises(ValueError, match="without word_confidence"):
        word_signals(bare)
    with pytest.raises(ValueError, match="without the column field"):
        groups_of_unit({"certificate": ["a"]}, "field")


def test_words_have_their_lines_signals_too():
    signals, rows = word_signals(TABLE)
    assert rows[:6].tolist() == [0, 0, 0, 1, 1, 1] and {"confidence", "length", "line_likelihood"} <= set(signals)
    assert signals["line_likelihood"][4] == TABLE["signal_likelihood"][1].as_py()
    uneven = TABLE.set_column(
        TABLE.column_names.index("word_signal_length"), "word_signal_length", pa.array([[1.0]] * len(TABLE))
    )
    with pytest.raises(ValueError, match="other numbers of words"):
        word_signals(uneven)


# --- fields of several lines with one text


def test_lines_of_a_text_are_told_apart_by_their_signals():
    signals, rows = lines_of(MERGED)
    sizes = lines_in(MERGED)
    assert sizes.tolist() == [1, 1, 2] * 300 and rows.tolist() == np.repeat(np.arange(900), sizes).tolist()
    alone = line_signals(TABLE)
    assert set(signals) == set(alone)
    for name, values in alone.items():
        assert np.array_equal(signals[name], values)
    words, of_row = word_signals(MERGED)
    alone, of_line = word_signals(TABLE)
    assert all(np.array_equal(words[name], values) for name, values in alone.items())
    assert np.array_equal(of_row, rows[of_line])
    bare = MERGED.drop_columns(["line_signal_top_share"])
    with pytest.raises(ValueError, match="line_words and without line_signal_top_share"):
        lines_of(bare)


def test_a_field_s_probability_is_made_of_its_lines_whether_their_texts_are_known_or_not():
    scores, _ = fitted()
    for unit in ("field", "certificate"):
        apart, together = (probabilities(scores, table, unit) for table in (TABLE, MERGED))
        first = np.unique(lines_of(MERGED)[1], return_index=True)[1]
        assert np.allclose(together, apart[first])
    lines, of_row = probabilities(scores, TABLE, "line"), lines_of(MERGED)[1]
    least = [lines[of_row == row].min() for row in range(6)]
    assert np.allclose(probabilities(scores, MERGED, "line")[:6], least)


def test_the_score_of_lines_is_of_texts_of_one_line():
    """Whatever is said of whether the others are right; that of fields is of all."""
    exact = MERGED["exact"].to_numpy().astype(float)
    several = lines_in(MERGED) > 1
    edits, characters = (MERGED[name].to_numpy().astype(float) for name in ("edits", "characters"))
    clusters = codes(MERGED, "certificate")
    scores, held_out = fit_scores(MERGED, exact, edits, characters, clusters)
    turned, _ = fit_scores(MERGED, np.where(several, 1 - exact, exact), edits, characters, clusters)
    for unit in ("line", "character"):
        assert np.array_equal(scores[unit].weights, turned[unit].weights)
    assert not np.array_equal(scores["field"].weights, turned["field"].weights)
    assert {len(held_out[unit]) for unit in ("line", "character", "field")} == {900}
    other = evaluated.merged(evaluated.lines(1, 300, name="o"))
    found = probabilities(scores, other, "field")
    assert found.mean() == pytest.approx(other["exact"].to_numpy().mean(), abs=0.06)
