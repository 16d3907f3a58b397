"""Evaluations read again, and which of them may be used together."""

from pathlib import Path

import evaluated
import pyarrow as pa
import pytest

from htr.reliability.conditions import NAMES
from jobs.evaluation.results import Evaluation, check_apart, check_same_reader, find


def test_an_evaluation_is_read_whole(tmp_path: Path):
    table = evaluated.lines(0, 6, writers=2)
    found = Evaluation.read(evaluated.write(tmp_path / "test", table, "test"))
    assert found.name == "test" and found.table.equals(table) and found.has_writers
    assert set(found.conditions) == set(NAMES)
    assert all(found.conditions[name] == evaluated.ASKED[name] for name in NAMES)
    assert set(found.groups("writer")) == {"writer cw0", "writer cw1"} and len(set(found.groups("certificate"))) == 6
    assert found.numbers("exact").dtype == float


def test_one_that_is_not_whole_or_too_old_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no evaluation that is whole"):
        Evaluation.read(tmp_path)
    old = evaluated.lines(0, 6).drop_columns(["signal_frames", "exact"])
    with pytest.raises(ValueError, match="lack exact, signal_frames: remove the folder and evaluate again"):
        Evaluation.read(evaluated.write(tmp_path / "old", old, "test"))


def test_found_by_name_or_folder(tmp_path: Path):
    run = evaluated.run(tmp_path / "run", {"dev": 4, "test": 4})
    assert find(run, "dev") == run / "evaluation" / "dev" == find(None, str(run / "evaluation" / "dev"))
    with pytest.raises(ValueError, match=r"no evaluation val in .*: there are dev, test"):
        find(run, "val")
    with pytest.raises(ValueError, match=r"no evaluation val$"):
        find(None, "val")


def test_parts_with_a_certificate_or_writer_in_common_are_refused(tmp_path: Path):
    def made(name: str, table: pa.Table, **asked: object) -> Evaluation:
        return Evaluation.read(evaluated.write(tmp_path / name, table, name, **asked))

    one, two = made("one", evaluated.lines(0, 4, name="a")), made("two", evaluated.lines(1, 4, name="b"))
    check_apart([one, two])
    again = made("again", evaluated.lines(2, 3, name="a"))
    with pytest.raises(ValueError, match="one and again have 3 certificates in common") as error:
        check_apart([one, two, again])
    assert "a1" not in str(error.value)
    hands = evaluated.lines(3, 4, writers=2, name="h"), evaluated.lines(4, 4, writers=2, name="i")
    hands = [table.set_column(table.column_names.index("writer"), "writer", [["w"] * len(table)]) for table in hands]
    hands = [made(f"hand{i}", table) for i, table in enumerate(hands)]
    with pytest.raises(ValueError, match=r"1 writer in common: .* --may-share writer"):
        check_apart(hands)
    check_apart(hands, ["writer"])
    check_same_reader([one, two])
    with pytest.raises(ValueError, match="one and other differ in decoding, weights: evaluate them alike"):
        check_same_reader([one, made("other", evaluated.lines(5, 4), weights="0" * 16, decoding=None)])
    for name, value in (("amp", "bf16"), ("batch", 8), ("device", "cuda"), ("passes", 2), ("code", "0" * 16)):
        with pytest.raises(ValueError, match=f"differ in {name}: evaluate them alike"):
            check_same_reader([one, made(f"other {name}", evaluated.lines(5, 4), **{name: value})])
