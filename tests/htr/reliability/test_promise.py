"""A promise on disk, and what production asks of it."""

import hashlib
import json
from pathlib import Path

import evaluated
import numpy as np
import pytest

from htr.code_digest import CUTTERS, code_in, cutting_code
from htr.reliability.conditions import (
    NAMES,
    OF_FORMS,
    READERS,
    conditions,
    conditions_in,
    difference,
    reading_code,
)
from htr.reliability.promise import Promise, files_of, score_of
from htr.reliability.units import codes, fit_scores, lines_in, probabilities

MADE = conditions_in(evaluated.ASKED)
TABLE = evaluated.lines(0, 200)


@pytest.fixture(scope="module")
def scores():
    columns = [TABLE[name].to_numpy().astype(float) for name in ("exact", "edits", "characters")]
    words = [[bool(exact)] * 3 for exact in TABLE["exact"].to_pylist()]
    return fit_scores(TABLE, *columns, codes(TABLE, "certificate"), words)[0]


def write(folder: Path, scores, threshold: float | None = 0.9, unit: str = "field", loss: str = "wrong") -> Path:
    note = {"conditions": MADE, "unit": unit, "loss": loss, "alpha": 0.02, "delta": 0.05, "threshold": threshold}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(scores, {"lines": 200}, note | {"promise": "so much"}, {"units": {}}).items():
        (folder / name).write_bytes(content)
    return folder


def test_a_promise_accepts_what_its_scores_say(tmp_path: Path, scores):
    promise = Promise.load(write(tmp_path, scores))
    assert (promise.unit, promise.alpha, promise.delta, promise.threshold) == ("field", 0.02, 0.05, 0.9)
    assert promise.text == "so much"
    found = promise.probability(TABLE)
    assert np.array_equal(found, probabilities(scores, TABLE, "field"))
    accepted = promise.accept(found, lines_in(TABLE))
    assert accepted.dtype == bool and 0 < accepted.sum() < len(TABLE)
    assert found[accepted].min() >= 0.9 > found[~accepted].max()
    # a mapping of columns is as good as a table, and part of it too, if its fields are whole
    columns = {name: TABLE[name].to_pylist()[:8] for name in TABLE.column_names}
    assert np.allclose(promise.probability(columns), found[:8])
    words = promise.probability(TABLE, unit="word")
    assert [len(word) for word in words] == [3] * len(TABLE) and all(0 < p < 1 for p in np.concatenate(words))
    assert np.array_equal(promise.probability(TABLE, unit="line"), probabilities(scores, TABLE, "line"))


def test_a_unit_exactly_at_the_threshold_is_accepted():
    """As it was when the threshold was chosen: it is one of the probabilities seen then."""
    promise = Promise("line", "wrong", 0.02, 0.05, 0.9, "", {}, {})
    assert promise.accept(np.array([0.9, np.nextafter(0.9, 0), 0.95]), np.ones(3)).tolist() == [True, False, True]


@pytest.mark.parametrize("unit, accepted", [("line", [True, False, False]), ("field", [True, True, False])])
def test_a_promise_of_lines_accepts_no_row_of_several(unit: str, accepted: list[bool]):
    """Of three accepted lines of a field each may be wrong: the text of the field then is, three times as often."""
    promise = Promise(unit, "wrong", 0.02, 0.05, 0.5, "", {}, {})
    assert promise.accept(np.array([0.9, 0.9, 0.1]), np.array([1, 3, 1])).tolist() == accepted


def test_where_nothing_can_be_promised_nothing_is_accepted(tmp_path: Path, scores):
    promise = Promise.load(write(tmp_path, scores, threshold=None))
    accepted = promise.accept(np.ones(5), np.ones(5))
    assert promise.threshold is None and not accepted.any() and len(accepted) == 5


def test_a_promise_of_cer_orders_lines_by_their_characters(tmp_path: Path, scores):
    promise = Promise.load(write(tmp_path, scores, unit="line", loss="cer"))
    assert np.array_equal(promise.probability(TABLE), probabilities(scores, TABLE, "character"))
    assert score_of("line", "cer") == "character" and score_of("field", "wrong") == "field"


OTHER = {"weights": "d" * 16, "decode": "greedy", "decoding": None, "amp": "bf16", "batch": 8, "device": "cuda",
         "passes": 2, "code": "e" * 16}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_readings_made_under_another_condition_are_refused(tmp_path: Path, scores, name: str):
    promise = Promise.load(write(tmp_path, scores))
    promise.check(MADE)
    changed = f"{name} {OTHER[name]} in place of {MADE[name]}"
    with pytest.raises(ValueError, match=rf"made for other readings \({changed}\): read as they were, or evaluate"):
        promise.check(MADE | {name: OTHER[name]})
    with pytest.raises(ValueError, match=f"{name} None in place of"):  # not said is not the same
        promise.check({n: value for n, value in MADE.items() if n != name})


@pytest.mark.parametrize("name", OF_FORMS)
def test_fields_cut_otherwise_are_refused_where_both_say_how(tmp_path: Path, scores, name: str):
    made = MADE | {"forms": "f" * 16, "rulings": "keep", "cutting": "c" * 16}
    other = {"forms": "0" * 16, "rulings": "remove", "cutting": "1" * 16}[name]
    note = {"conditions": made, "unit": "field", "loss": "wrong", "alpha": 0.02, "delta": 0.05, "threshold": 0.9}
    for file, content in files_of(scores, {}, note | {"promise": "so much"}, {}).items():
        (tmp_path / file).write_bytes(content)
    promise = Promise.load(tmp_path)
    promise.check(made)
    promise.check(MADE)  # of lines that somebody else has cut nobody knows how
    with pytest.raises(ValueError, match=f"{name} {other} in place of {made[name]}"):
        promise.check(made | {name: other})
    promise.check(made | {name: other}, reader_alone=True)


def test_who_takes_the_scores_alone_asks_for_the_reader_alone(tmp_path: Path, scores):
    promise = Promise.load(write(tmp_path, scores))
    promise.check(MADE | {"batch": 8, "amp": "bf16"}, reader_alone=True)
    with pytest.raises(ValueError, match="decode greedy in place of beam"):
        promise.check(MADE | {"decode": "greedy"}, reader_alone=True)


def test_conditions_are_what_was_computed_with():
    made = conditions("a" * 16, "greedy", None, "off", 16, "cpu")
    assert tuple(made) == NAMES and made["code"] == reading_code() and not difference(made, made)
    for amp, device in (("auto", "cpu"), ("off", "auto")):
        with pytest.raises(ValueError, match="not auto"):
            conditions("a" * 16, "greedy", None, amp, 16, device)


def test_the_reading_codes_digest_is_of_what_it_does():
    source = 'def f(x):\n    """Twice."""\n    return 2 * x  # twice\n'
    assert code_in(source) == code_in("def f(x):\n    'Doubled.'\n\n    return 2*x\n")
    assert code_in(source) != code_in(source.replace("2 * x", "3 * x"))


def test_no_reading_code_is_left_out():
    """What a reader imports of this project's own, but for what only names, cuts or scores."""
    import subprocess
    import sys

    from htr.charset import Charset
    from htr.io.direction import resolve
    from htr.io.image_files import decode
    from htr.io.image_headers import Header
    from htr.lines.region import Region
    from htr.metrics.error_rates import compare

    code = "import sys, htr.reader; print([m for m in sys.modules if m.partition('.')[0] == 'htr'])"
    loaded = eval(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    covered = list(READERS)
    beside = {one.__module__ for one in (Charset, Header, Region, compare, decode, resolve)}
    beside |= {"htr"}  # where the project's own reader lies
    beside |= {name for name in loaded if is_empty_package(sys.modules[name])}
    left = {name for name in loaded if not any(f"{name}.".startswith(f"{one}.") for one in covered)}
    assert {"htr.reader", "htr.types"} <= set(covered) <= set(loaded) and left <= beside


def test_no_cutting_code_is_left_out():
    """What cuts fields, of forms and lines: all that it imports there, but templates, whose files have a digest."""
    import subprocess
    import sys

    code = "import sys, shards.fields, htr.scan; print([m for m in sys.modules if m.partition('.')[0] == 'htr'])"
    loaded = eval(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    cutting = {name for name in loaded if name.startswith(("htr.forms.", "htr.lines."))}
    assert cutting - set(CUTTERS) == {"htr.forms.template", "htr.forms.field_rules"}
    assert set(CUTTERS) - cutting == {"htr.scan", "shards.fields"}
    assert len(cutting_code()) == 16 and cutting_code() != reading_code()


def is_empty_package(module) -> bool:
    return hasattr(module, "__path__") and code_in(Path(module.__file__).read_text(encoding="utf-8")) == code_in("")


def test_what_is_no_promise_is_an_error(tmp_path: Path, scores):
    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            Promise.load(folder)

    folder = tmp_path / "promise"
    fails("no promise here .score.json is missing")
    write(folder, scores)
    good = (folder / "promise.json").read_text(encoding="utf-8")
    note = json.loads(good)
    for change, match in (
        ({"format": 9}, "format 9, this code reads 2"),
        ({"format": 1}, "made by an older version, whose test did not hold.*calibrate again"),
        ({"score": "0" * 64}, "score.json is not the one that promise.json was written for"),
        ({"unit": "page"}, "a promise of page"),
        ({"threshold": "high"}, "not a promise that can be read"),
    ):
        (folder / "promise.json").write_text(json.dumps(note | change))
        fails(match)
    (folder / "promise.json").write_text(good[:50])
    fails("damaged")
    (folder / "promise.json").unlink()
    fails("promise.json is missing.*: run python -m jobs calibrate")
    # a score without the one that is promised
    content = json.loads((folder / "score.json").read_text(encoding="utf-8"))
    del content["scores"]["field"]
    (folder / "score.json").write_text(json.dumps(content))
    digest = hashlib.sha256((folder / "score.json").read_bytes()).hexdigest()
    (folder / "promise.json").write_text(json.dumps(note | {"score": digest}))
    fails("no score of field")
