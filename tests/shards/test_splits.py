"""Splits: by writer or certificate, by year, and nothing in two of them unless that was allowed."""

import pyarrow as pa
import pytest

from htr.certificate import SPLITS, split_of
from shards.splits import choose_splits, parse_years

SHARES = {"train": 0.5, "test": 0.5}


def splits(rows: list[dict], shares=SHARES, salt: str = "1", **options) -> list[str]:
    """Rows of dictionaries; an image of its own for a row that names none."""
    filled = [
        {"certificate": f"c{i}", "image": f"{i}.png", "page": "", "writer": "", "year": "", "split": ""} | row
        for i, row in enumerate(rows)
    ]
    codes = choose_splits(pa.Table.from_pylist(filled), shares, salt, **options)
    assert str(codes.dtype) == "int8"
    return [SPLITS[code] for code in codes]


def test_by_hash_of_the_certificate_or_of_its_first_known_writer():
    rows = [{"certificate": "a"}, {"certificate": "b", "writer": "w"}, {"certificate": "a"}, {"certificate": "d"}]
    rows += [{"certificate": "d", "writer": "v"}, {"certificate": "b"}]
    groups = ["a", "w", "a", "v", "v", "w"]
    for salt in "12345":
        assert splits(rows, salt=salt) == [split_of(group, SHARES, salt) for group in groups]


def test_a_given_split_wins_over_hash_and_year():
    rows = [{"split": "val"}, {"split": "", "year": "1999"}, {"split": "calibration", "year": "CANARY"}]
    assert splits(rows, {"dev": 1.0}) == ["val", "dev", "calibration"]
    assert splits(rows, years="train=-2000") == ["val", "train", "calibration"]
    assert splits([{"split": "val"}] * 2, may_share=("certificate",)) == ["val", "val"]


def test_years():
    rule = "train=-2018,dev=2019,val=2020,test=2021-2022,train=2024-"
    years = {"1990": "train", "2018": "train", "2019": "dev", "2020": "val", "2021": "test", "2022": "test"}
    years |= {"2024": "train", "2100": "train", " 2019": "dev"}
    assert splits([{"year": year} for year in years], years=rule) == list(years.values())
    rows = [{"year": "2023"}] * 2 + [{"year": ""}] * 3 + [{"year": "CANARY"}, {"year": "2019"}]
    with pytest.raises(
        ValueError, match=r"^6 rows have a year that no split takes: none \(3 rows\), 2023 \(2 rows\), n"
    ):
        splits(rows, years=rule)
    with pytest.raises(ValueError) as error:
        splits([*rows, *({"year": str(1000 + i)} for i in range(9))], years="dev=2019")
    assert "and 7 more" in str(error.value) and "CANARY" not in str(error.value)


def test_parse_years():
    assert parse_years("train=-2018, dev=2019,test=2021-") == [
        ("train", 0, 2018), ("dev", 2019, 2019), ("test", 2021, 9999)
    ]  # fmt: skip


NO_RULES = ["2018", "train", "train=", "train=2018,", "learn=2018", "train=20-18-19", "train=2019-2018", "train=x"]
NO_RULES += ["train=١٩٩٩", "train=20182019", "train=-2019,test=2019-", "train=2019,test=2019", "train=-,test=2005"]


@pytest.mark.parametrize("rule", NO_RULES)
def test_years_that_make_no_sense(rule):
    with pytest.raises(ValueError, match=f"^years '{rule}': "):
        parse_years(rule)


LEAKS = {
    "certificate": [{"certificate": "CANARY", "split": "train"}, {"certificate": "CANARY", "split": "test"}],
    "image": [{"image": "CANARY", "split": "train"}, {"image": "CANARY", "split": "val"}],
    "writer": [{"writer": "CANARY", "split": "dev"}, {"writer": "CANARY", "split": "test"}],
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_two_splits_share_is_refused_unless_allowed(name):
    rows = LEAKS[name] + [{"split": "train"}] * 3
    with pytest.raises(ValueError, match=f"splits overlap: 1 {name} would .*allow it with --may-share {name}$") as e:
        splits(rows)
    assert "CANARY" not in str(e.value)
    others = tuple({"certificate", "image", "writer"} - {name})
    with pytest.raises(ValueError, match="overlap"):
        splits(rows, may_share=others)
    assert splits(rows, may_share=(name,)) == [row["split"] for row in rows]


def test_all_leaks_are_counted():
    rows = [{"certificate": str(i % 4), "image": str(i % 3), "split": SPLITS[i % 5]} for i in range(60)]
    with pytest.raises(ValueError, match=r"4 certificates, 3 images would .*--may-share certificate --may-share image"):
        splits(rows)


def test_what_is_not_known_is_not_shared():
    rows = [{"certificate": "", "image": "", "writer": "", "split": split} for split in SPLITS]
    assert splits(rows) == list(SPLITS)


def test_two_writers_of_one_certificate():
    """The certificate stays whole; where the second writer has another certificate, that is found."""
    certificates = {split_of(f"w{i}", SHARES, "1"): f"w{i}" for i in range(20)}
    one, other = certificates["train"], certificates["test"]
    rows = [{"certificate": "a", "writer": one}, {"certificate": "a", "writer": other}]
    assert splits(rows) == ["train", "train"]
    with pytest.raises(ValueError, match="1 writer would"):
        splits([*rows, {"writer": other}])


def test_a_writer_may_write_for_years_but_a_certificate_may_not():
    rows = [{"writer": "w", "year": "2018"}, {"writer": "w", "year": "2019"}]
    assert splits(rows, years="train=2018,test=2019") == ["train", "test"]
    with pytest.raises(ValueError, match="1 certificate would"):
        splits([row | {"certificate": "c"} for row in rows], years="train=2018,test=2019")


def test_pages_of_one_file_are_images_of_their_own():
    """A TIFF of many certificates: its name is in all splits, each of its pages in one."""
    rows = [{"image": "all.tif", "page": str(page)} for page in range(40)]
    assert set(splits(rows)) == set(SHARES)
    with pytest.raises(ValueError, match="1 image would be in more than one"):
        splits([{"image": "all.tif", "page": "3", "split": split} for split in ("train", "val")])
