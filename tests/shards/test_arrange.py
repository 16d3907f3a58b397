"""The order of the plan: images whole, faults found where all rows are seen, columns picked whatever their pieces."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr.io.account import Account
from htr.io.sources import OURS
from shards.arrange import FAULTS, NUMBERED, combine, cut, lay_out, number_lines, pick, sizes
from shards.plan import Settings


def arranged(settings: dict, **columns: list[str]) -> tuple[list[list[int]], list[str]]:
    """-> the rows of each shard, the fault of each row of the source."""
    count = len(next(iter(columns.values())))
    numbers = [str(number) for number in range(count)]
    given = {name: [""] * count for name in OURS} | {"image": numbers, "certificate": numbers} | columns
    table, order, shards = lay_out(pa.table(given), Settings(shares={"train": 1.0}, **settings))
    parts = list(cut(table, order, shards))
    assert [part.num_rows for part in parts] == [shard["rows"] for shard in shards]
    rows = pa.concat_tables(parts).sort_by("row").to_pylist()
    assert [{name: row[name] for name in columns} for row in rows] == pa.table(columns).to_pylist()
    return [part["row"].to_pylist() for part in parts], [row["fault"] for row in rows]


def test_faults():
    names = [("c", "Ia", "0"), ("c", "I", "a0"), ("c", "Ia", "0"), ("", "Ia", "0"), ("c", "Ia", "1"), ("c", "Ia", "0")]
    certificate, field, line = (list(column) for column in zip(*names, strict=True))
    assert FAULTS == ("", "certificate, field and line were there before", "no certificate")
    none, double, nameless = FAULTS
    _, faults = arranged({}, certificate=certificate, field=field, line=line)
    assert faults == [none, none, double, nameless, none, double]
    with pytest.raises(ValueError, match=r"^2 rows have a number in the column line, but a row is to be a whole field"):
        arranged({"unit": "field"}, certificate=certificate, field=field, line=line)
    _, faults = arranged({"unit": "field"}, certificate=certificate, field=field, line=["", "0"] * 3)
    assert faults == [none, none, double, nameless, double, double]


@pytest.mark.parametrize("most", [4, 3_000_000, 2**32])
def test_codes_of_several_columns_are_one_number(most):
    """Also where the product of what they could be is beyond 64 bits."""
    columns = [np.random.default_rng(seed).integers(most - 4, most, 100) for seed in range(3)]
    numbers = combine([(codes, most) for codes in columns]).tolist()
    assert len(set(numbers)) == len(set(zip(*columns, strict=True))) == len(set(zip(*columns, numbers, strict=True)))


def test_rows_of_an_image_come_together_in_one_shard():
    images, pages = list("babcadbeffffffgd"), ["", "", "1", "", "", "", "", "", *"010011", "", ""]
    # b of page "" comes before that of page 1; the image f is larger than a shard, its pages are not
    expected = [[0, 6, 2], [1, 4, 3], [5, 15, 7], [8, 10, 11], [9, 12, 13, 14]]
    assert arranged({"rows": 4}, image=images, page=pages)[0] == expected
    # a page of more rows than a shard's is parted, but not where it is registered as a whole
    assert [len(rows) for rows in arranged({"rows": 4}, image=["a"] * 9 + ["b"])[0]] == [4, 4, 2]
    assert [len(rows) for rows in arranged({"rows": 4, "unit": "field"}, image=["a"] * 9 + ["b"])[0]] == [9, 1]
    fields = {"rows": 4, "unit": "field"}
    assert [len(rows) for rows in arranged(fields, image=[""] * 1500)[0]][:2] == [4, 4]  # nor where nothing ends it


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 12), st.integers(0, 5))
def test_shards_end_where_groups_end(groups, rows, more):
    starts, count = np.cumsum([0, *groups[:-1]]), sum(groups)
    found = list(sizes(starts, count, rows, rows + more))
    assert sum(found) == count and max(found) <= rows + more
    for begin, end in pairwise(np.cumsum([0, *found]).tolist()):
        for start, group in zip(starts, groups, strict=True):
            if start < end < start + group:  # a group is parted: it is alone, and what is left of it too large
                assert start <= begin and start + group - begin > rows + more


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.data())
def test_pick(lengths, data):
    numbers = iter(range(99))
    chunks = [pa.array([f"text {next(numbers)}" for _ in range(length)]) for length in lengths]
    rows = data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1))
    starts = np.cumsum([0, *lengths])
    assert pick(chunks, starts, np.array(rows)).to_pylist() == [f"text {row}" for row in rows]
    coded = [chunk.dictionary_encode() for chunk in chunks]
    assert pick(coded, starts, np.array(rows)).to_pylist() == [f"text {row}" for row in rows]


def lines_of(unit: str = "line", account: Account | None = None, **columns: list[str]) -> list[str]:
    count = len(columns["image"])
    table = pa.table({name: ["0" if name == "line" else ""] * count for name in OURS} | columns)
    return number_lines(table, unit, account)["line"].to_pylist()


def test_lines_that_nobody_has_numbered_get_numbers():
    account = Account()
    images, certificates = list("abcdef"), list("xyxxzy")
    assert lines_of(image=images, certificate=certificates, account=account) == ["1", "1", "2", "3", "0", "2"]
    assert account.notes == [NUMBERED]
    # the boxes of one page are places, too; what names a place again stays a repeated row
    boxes = ["0 0 9 9", "0 9 9 9", "0 0 9 9"]
    assert lines_of(image=["p"] * 3, certificate=["c"] * 3, box=boxes) == ["1", "2", "1"]


@pytest.mark.parametrize(
    "unit, columns",
    [
        ("line", {"image": list("ab"), "certificate": list("cc"), "line": ["7", "0"]}),  # somebody has
        ("line", {"image": list("ab"), "certificate": list("cd")}),  # nobody needs to
        ("line", {"image": list("aa"), "certificate": list("cc")}),  # the same row twice
        ("field", {"image": list("ab"), "certificate": list("cc")}),  # a row is a whole field
    ],
)
def test_lines_keep_the_numbers_that_they_have(unit, columns):
    account = Account()
    assert lines_of(unit, account, **columns) == columns.get("line", ["0", "0"])
    assert not account.notes


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), st.sampled_from("pqr")), min_size=1))
def test_as_many_names_as_places(rows):
    certificate, field, image = (list(column) for column in zip(*rows, strict=True))
    lines = lines_of(certificate=certificate, field=field, image=image)
    assert len(set(zip(certificate, field, lines, strict=True))) == len(set(rows))
