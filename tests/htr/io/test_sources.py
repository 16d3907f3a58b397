"""Tables as they come: every cell text, every fault a ValueError that quotes no transcription."""

import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.io import tables
from htr.io.sources import OURS, RESERVED, digest, encode, read_source


def read(folder, content: str | bytes, name: str = "lines.csv") -> list[dict]:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    table, images = read_source(file)
    assert images == folder
    return table.to_pylist()


def values(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv(tmp_path, delimiter, bom, newline):
    lines = [["image", "text", "certificate", "ward"], ["a.png", "décès", "007", "12"], ["b.png", "NA", "1e5", ""]]
    content = newline.join(delimiter.join(line) for line in lines) + newline
    first, second = read(tmp_path, bom + content.encode())
    assert first == {
        "image": "a.png",
        "text": "décès",
        "certificate": "007",
        "field": "text",
        "line": "0",
        "page": "",
        "box": "",
        "polygon": "",
        "baseline": "",
        "writer": "",
        "year": "",
        "form": "",
        "split": "",
        "ward": "12",
    }
    assert (second["text"], second["certificate"], second["ward"]) == ("NA", "1e5", "")


@pytest.mark.parametrize("word", ["NA", "null", "NaN", "007", "1.50", "true", "2020-01-02", "", "-", "#N/A", " "])
def test_a_cell_stays_what_was_typed(tmp_path, word):
    row = read(tmp_path, f"image,text,certificate,ward\na.png,{word},c,{word}\n")[0]
    assert row["text"] == row["ward"] == word


def test_quotes_delimiters_and_newlines_within_cells(tmp_path):
    content = 'image,"text",certificate\n"a.png","choc, ""septique""\nsecond line; end",c1\nb.png,chute,c2\n'
    first, second = read(tmp_path, content)
    assert first["text"] == 'choc, "septique"\nsecond line; end' and second["text"] == "chute"


def test_an_empty_cell_of_a_column_with_a_default(tmp_path):
    first, second = read(tmp_path, "image,text,certificate,field,line\na,b,c,,\na,b,c,Ia,3\n")
    assert (first["field"], first["line"]) == ("text", "0") and (second["field"], second["line"]) == ("Ia", "3")


def test_columns_in_any_order_and_the_users_own_last(tmp_path):
    (tmp_path / "t.csv").write_text("zone,text,year,certificate,image\nz,t,2020,c,i\n")
    assert read_source(tmp_path / "t.csv")[0].column_names == [*OURS, "zone"]


def test_parquet(tmp_path):
    columns = {
        "image": ["a.png", "b.png"],
        "text": pa.array(["choc", "NA"]).dictionary_encode(),
        "certificate": [7, 8],
        "line": pa.array([None, 2], pa.int64()),
        "writer": pa.array([None, "w"], pa.large_string()),
        "entered": [datetime.date(2020, 1, 2), None],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table, images = read_source(tmp_path / "t.parquet")
    assert images == tmp_path and {str(values(field.type)) for field in table.schema} == {"string"}
    assert table["certificate"].to_pylist() == ["7", "8"] and table["line"].to_pylist() == ["0", "2"]
    assert table["text"].to_pylist() == ["choc", "NA"] and table["writer"].to_pylist() == ["", "w"]
    assert table["entered"].to_pylist() == ["2020-01-02", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,text\na,b\n", "no column certificate .it has image, text"),
        ("image|text|certificate\na|b|c\n", "no column image, text, certificate"),
        ("image,text,certificate\n", "without rows"),
        ("", "an empty file"),
        ("\ufeff", "an empty file"),
        ("\n\n", "an empty file"),
        ("image,text,certificate,text\na,CANARY,c,d\n", "more than one column text"),
        ("image,text,certificate\na,CANARY,c,d\n", "more or fewer columns"),
        ("image,text,certificate\na,b,c\na,CANARY\n", "more or fewer columns"),
        (b"image,text,certificate\na,CANARY \xff\xfe,c\n", "not UTF-8 CSV"),
    ],
)
def test_faults_are_named_without_the_rows_text(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"lines\.csv: .*{message}") as error:
        read(tmp_path, content)
    assert "CANARY" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None  # nor does its traceback


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_columns(tmp_path, name):
    with pytest.raises(ValueError, match=f"column name {name} is reserved"):
        read(tmp_path, f"image,text,certificate,{name}\na,b,c,d\n")


def test_no_source(tmp_path):
    with pytest.raises(ValueError, match="no such table or folder"):
        read_source(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="no ALTO or PAGE XML"):
        read_source(tmp_path)


def test_a_damaged_parquet(tmp_path):
    with pytest.raises(ValueError, match=r"t\.parquet: damaged, or not a Parquet file") as error:
        read(tmp_path, b"PAR1 CANARY", "t.parquet")
    assert "CANARY" not in str(error.value)


def test_a_folder_of_pages(tmp_path):
    (tmp_path / "p.xml").write_text(
        '<PcGts><Page imageFilename="p.png"><TextLine><Coords points="1,2 9,2 9,8"/>'
        "<TextEquiv><Unicode>choc</Unicode></TextEquiv></TextLine></Page></PcGts>"
    )
    with pytest.warns(UserWarning, match="1 XML name an image that is not there"):
        table, images = read_source(tmp_path)
    assert images == tmp_path and table.num_rows == 1 and table.column_names == list(OURS)
    assert table["text"].to_pylist() == ["choc"] and table["polygon"].to_pylist() == ["1,2 9,2 9,8"]


def test_a_cell_of_a_megabyte_and_a_quote_that_is_never_closed(tmp_path):
    text = "é" * (1 << 20)
    assert read(tmp_path, f"image,text,certificate\na,b,c\na,{text},c\n")[1]["text"] == text
    rows = "a,CANARY,c\n" * (tables.CSV_BLOCK_BYTES // 8)
    with pytest.raises(ValueError, match=r"more than 16 MiB: a quote|columns") as error:
        read(tmp_path, f'image,text,certificate\na,"b,c\n{rows}')
    assert "CANARY" not in str(error.value)


PIECES = [pa.array(["b", None, ""]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()]


@pytest.mark.parametrize(
    ("column", "default", "expected"),
    [
        (PIECES, "b", "bbbab"),
        (PIECES, "z", ["b", "z", "z", "a", "b"]),
        (PIECES, "", ["b", "", "", "a", "b"]),
        (
            [pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None], pa.int8()), ["a", None, ""])],
            "",
            ["a", "", "", ""],
        ),
        ([pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None], pa.int8()), ["a", None, ""])], "a", "aaaa"),
        ([pa.nulls(2)], "0", "00"),
        ([pa.array([7, None, 7], pa.int8())], "0", "707"),
        ([pa.array(["a", "b"], pa.large_string()), pa.array(["b"], pa.large_string())], "", "abb"),
        ([pa.array([True, None])], "", ["true", ""]),
    ],
)
def test_cells_that_mean_the_same_have_the_same_code(column, default, expected):
    once = encode(pa.chunked_array(column), default)
    for coded in (once, encode(pa.chunked_array([once]), default)):
        assert coded.to_pylist() == list(expected) and coded.type == pa.dictionary(pa.int32(), pa.string())
        codes = dict(zip(coded.to_pylist(), coded.indices.to_pylist(), strict=True))
        assert [codes[text] for text in expected] == coded.indices.to_pylist()
        # and it is where one would look for it
        assert all(coded.dictionary.index(text).as_py() == code for text, code in codes.items())


@pytest.mark.parametrize("name", ["text", "certificate", "ward"])
def test_parquet_that_is_no_text(tmp_path, name):
    for kind in (pa.array([b"CANARY\xff"]), pa.array([["CANARY"]])):
        columns = {"image": ["i"], "text": ["t"], "certificate": ["c"]} | {name: kind}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=rf"column {name} .* can't be read as text") as error:
            read_source(tmp_path / "t.parquet")
        assert "CANARY" not in str(error.value)


def test_the_digest_is_of_the_bytes(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,text,certificate\na,b,c\n")
    before = digest(table)
    table.write_text("image,text,certificate\na,b,d\n")
    assert digest(table) != before
    pages = tmp_path / "pages"
    (pages / "1").mkdir(parents=True)
    (pages / "1" / "p.xml").write_text("<PcGts/>")
    found = [digest(pages)]
    (pages / "p.jpg").write_text("an image that was missing may come later")
    assert digest(pages) == found[0]
    (pages / "1" / "p.xml").rename(pages / "p.xml")
    found.append(digest(pages))
    (pages / "p.xml").write_text("<PcGts></PcGts>")
    found.append(digest(pages))
    assert len(set(found)) == 3
    with pytest.raises(ValueError, match="no such table or folder"):
        digest(tmp_path / "nowhere.csv")
