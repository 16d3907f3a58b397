"""Tables as offices have them: what is no CSV, other line ends and encodings, headers, numbers, types of Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.io.account import Account
from htr.io.sources import read_source
from jobs.transcription.inputs import open_input

HEAD = "image,text,certificate"


def read(folder: Path, content: str | bytes | pa.Table, name: str = "t.csv") -> tuple[list[dict], Account]:
    path = folder / name
    if isinstance(content, pa.Table):
        path = path.with_suffix(".parquet")
        pq.write_table(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    account = Account()
    return read_source(path, account=account)[0].to_pylist(), account


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\3\4abc", "save its sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
        (b"\x1f\x8b\x08\0abc", "unpack it first"),
        (b"PAR1abcPAR1", "give it a name that ends in .parquet"),
        (b"%PDF-1.7", "a PDF"),
        (HEAD, "a table without rows"),
        (HEAD + "\n", "a table without rows"),
        ("<html><table></table></html>", "a table without rows"),
        (f"# export du 3 mars\n{HEAD}\na,b,c\n", "the header stands in line 2: remove what is above it"),
        ("Certificats 2020;;\nimage;texte;certificate\na;b;c\n", "the header stands in line 2"),
        ("image\ttext\tcertificate\na\té\tc\n".encode("utf-16") + b"\0", "begins as UTF-16 and is not"),
        ("image;text;certificate\na;\xbddème;c\n".encode("cp1252"), "nor cp1252: see line 2"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_called_by_its_name(tmp_path, content, told):
    with pytest.raises(ValueError, match=told):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("image,text,certificate\ra,é,c\r", "line ends of old Macs"),
        ("image\ttext\tcertificate\na\té\tc\n".encode("utf-32"), "read as UTF-32"),
        ("sep=;\r\nimage;text;certificate\r\na;é;c\r\n".encode("utf-16"), "read as UTF-16"),
        ("sep=|\nimage|text|certificate\na|é|c\n", ""),
        ("\ufeffsep=;\nimage;text;certificate\na;é;c\n", ""),
        (" Image\u00a0;\u202fTEXT;Certificate ;;\na;é;c;;\n", ""),
        ("image;text;certificate\r\na;é;c\n", ""),
        ("image;text;certificate\na;é;c".encode("cp1252"), "read as cp1252"),
    ],
)
def test_another_way_to_write_the_same_table(tmp_path, content, note):
    [row], account = read(tmp_path, content)
    assert (row["image"], row["text"], row["certificate"]) == ("a", "é", "c")
    assert (note in " ".join(account.notes)) if note else not account.notes
    source = open_input(tmp_path / "t.csv", "line")
    assert source.chunk(0, 1).rows[0]["image"] == "a" and source.account["there"] == 1


def test_a_half_is_read_where_it_is_none_of_a_word(tmp_path):
    text = "\u00bd cp, 1 \u00bd \u00e9t\u00e9"
    [row], _ = read(tmp_path, f"image;text;certificate\na;{text};c\n".encode("cp1252"))
    assert row["text"] == text


def test_a_table_without_a_header_does_not_show_its_first_row(tmp_path):
    for read_it in (read_source, lambda path: open_input(path, "line")):
        (tmp_path / "t.csv").write_text("a.png,CANARY,c1\nb.png,mort,c2\n", encoding="utf-8")
        with pytest.raises(ValueError, match="please give it a header") as error:
            read_it(tmp_path / "t.csv")
        assert "CANARY" not in str(error.value)


def test_numbers_of_french_tables(tmp_path):
    [row], _ = read(tmp_path, "image;text;certificate;page;year\na;b;c;1,0;1987,00\n")
    assert (row["page"], row["year"]) == ("1", "1987")


def base(**more) -> pa.Table:
    return pa.table({"image": ["a"], "text": ["x"], "certificate": ["1"]} | more)


def test_types_of_parquet(tmp_path):
    kinds = {"image": pa.large_string(), "text": pa.string_view(), "certificate": pa.string()}
    strings = pa.table({name: pa.array(["é", "a"], kind) for name, kind in kinds.items()})
    assert [row["text"] for row in read(tmp_path, strings)[0]] == ["é", "a"]
    column = pa.array(["a", None, "a"]).dictionary_encode()
    coded = pa.table(dict.fromkeys(kinds, column))
    assert [row["text"] for row in read(tmp_path, coded)[0]] == ["a", "", "a"]
    [row], _ = read(tmp_path, base(year=pa.array([None], pa.null()), line=[2.0], page=[float("nan")], seen=[True]))
    assert (row["year"], row["line"], row["page"], row["seen"]) == ("", "2", "", "true")
    [row], _ = read(tmp_path, pa.table({"Image": ["a"], " text": ["x"], "CERTIFICATE": [7]}))
    assert (row["image"], row["text"], row["certificate"]) == ("a", "x", "7")
    [row], _ = read(tmp_path, base(box=[[1, 2, 30, 40]]))
    assert row["box"] == "1 2 30 40"


def test_parquet_that_can_not_be_a_table(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"])] * 4, names=["image", "text", "certificate", "text"])
    for table, told in [
        (twice, "more than one column text"),
        (base(words=[["a", "b"]]), r"column words \(list.*write it as text, or leave it out"),
        (base(box=[{"x": 1}]), r"column box \(struct"),
        (base().slice(0, 0), "without rows"),
    ]:
        with pytest.raises(ValueError, match=told):
            read(tmp_path, table)
