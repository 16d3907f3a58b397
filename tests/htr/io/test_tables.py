"""Tables as people have them: ditto marks, quotes, Excel's ways, encodings; texts with characters that nobody sees."""

import csv
import io
import tarfile
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr.certificate import clean_text, invisible, not_text
from htr.charset import Charset
from htr.io.account import Account, lines_of
from htr.io.sources import read_source

HEADER = "image\ttext\tcertificate\n"


def read(folder, content: str | bytes, quotes: str = "auto") -> tuple[list[dict], Account]:
    file, account = folder / "lines.csv", Account()
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = read_source(file, quotes, account)[0].to_pylist()
    assert account.read == len(rows)
    return rows, account


def texts(folder, content: str | bytes, quotes: str = "auto") -> list[str]:
    return [row["text"] for row in read(folder, content, quotes)[0]]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
@pytest.mark.parametrize(
    "cells",
    [
        ["Vente", '"', "Bail", '"', "Roy"],  # an even number of ditto marks: whole rows between two of them
        ["Vente", '"', "Bail", '"', '"'],
        ["Vente", '"', '" id.', 'dit "Le Clos"', '"'],
        ['"Le Clos" rue Haute', '"mort"', 'dit "Jo"', '""', '"" id ""', "5' 3\""],
        ['"'],
    ],
)
def test_quotes_that_are_text_leave_a_row_a_line(tmp_path, cells, delimiter, newline):
    lines = ["image\ttext\tcertificate", *(f"{n}.png\t{cell}\tacte{n}" for n, cell in enumerate(cells))]
    content = newline.join(line.replace("\t", delimiter) for line in lines) + newline
    rows, account = read(tmp_path, content)
    assert [row["text"] for row in rows] == cells and [row["image"] for row in rows] == [
        f"{n}.png" for n in range(len(cells))
    ]
    assert len(account.notes) == 1 and "quotes are read as text" in account.notes[0]  # said, and once


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_ditto_mark_in_any_column(tmp_path, place):
    rows = [["a.png", "Vente", "c"], ["b.png", "Bail", "d"], ["c.png", "Roy", "e"], ["d.png", "Puy", "f"]]
    rows[1][place] = rows[3][place] = '"'
    found, _ = read(tmp_path, HEADER + "".join("\t".join(row) + "\n" for row in rows))
    assert [[row["image"], row["text"], row["certificate"]] for row in found] == rows


def test_quotes_that_open_and_do_not_close_are_refused_with_the_row(tmp_path):
    content = HEADER + 'a.png\tVente\ta\nb.png\t"CANARY\tb\nc.png\tBail\tc\nd.png\tfin"\td\n'
    with pytest.raises(ValueError, match=r"row 2 \(line 3\) .*--quotes none.*--quotes csv") as error:
        read(tmp_path, content)
    assert "CANARY" not in str(error.value)
    assert texts(tmp_path, content, "none") == ["Vente", '"CANARY', "Bail", 'fin"']
    assert len(texts(tmp_path, content, "csv")) == 2  # who says so gets it


def test_a_cell_of_several_lines_and_one_that_holds_rows(tmp_path):
    whole = 'image,text,certificate\na.png,"choc, ""septique""\nsecond",a\nb.png,"1,5 g",b\n'
    assert texts(tmp_path, whole) == ['choc, "septique"\nsecond', "1,5 g"]
    mixed = 'image,text,certificate\na.png,",a\nb.png,"1,5 g",b\nc.png,",c\n'  # ditto marks among cells in quotes
    with pytest.raises(ValueError, match="row 1"):
        read(tmp_path, mixed)
    rows = 'image,text,certificate\na.png,"x",a\nb.png,"y,b\nc.png,z",c\n'
    with pytest.raises(ValueError, match=r"row 2 .*holds whole rows"):
        read(tmp_path, rows)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text('ab",;\t\n é', max_size=8), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(",;\t"),
)
def test_what_a_csv_writer_wrote_is_read_back_or_refused(tmp_path_factory, cells, quoting, delimiter):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerow(["image", "text", "certificate"])
    writer.writerows([f"{n}.png", cell, f"c{n}"] for n, cell in enumerate(cells))
    folder = tmp_path_factory.mktemp("csv")
    assert texts(folder, file.getvalue(), "csv") == cells
    try:
        found = texts(folder, file.getvalue())
    except ValueError as error:
        assert "row" in str(error)
    else:
        assert found == cells


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text('ab" é', max_size=6), min_size=1, max_size=8))
def test_lines_that_know_no_quoting_are_never_two_rows_in_one(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("tsv")
    content = HEADER + "".join(f"{n}.png\t{cell}\tc{n}\n" for n, cell in enumerate(cells))
    assert texts(folder, content, "none") == cells
    try:
        found = texts(folder, content)
    except ValueError as error:
        assert "row" in str(error)
    else:  # every cell as it stands, or each without CSV's quotes around it
        plain = [
            cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell for cell in cells
        ]
        assert found in (cells, plain)


# ---------------------------------------------------------------- Excel, pandas, encodings

ROWS = 'p0.jpg;arrêt cardiaque;c0\r\np1.jpg;"dit « le Grand »; 3 j";c1\r\np2.jpg;1,5 g;c2\r\np3.jpg;cœur ½ 50 €;c3\r\n'
RIGHT = ["arrêt cardiaque", "dit « le Grand »; 3 j", "1,5 g", "cœur ½ 50 €"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ("image;text;certificate\r\n" + ROWS).encode(),
        b"\xef\xbb\xbf" + ("sep=;\r\nimage;text;certificate\r\n" + ROWS).encode(),
        ("image\xa0; text ;certificate\r\n" + ROWS).encode(),
        ("Image;TEXT;Certificate\r\n" + ROWS).encode(),
        ('image;text;certificate;"x, y, w, h"\r\n' + ROWS.replace("\r\n", ";\r\n")).encode(),
        ("image;text;certificate;;\r\n" + ROWS.replace("\r\n", ";;\r\n")).encode(),
        ("image;text;certificate\r\n" + ROWS + ";;\r\n;;\r\n").encode(),
        ("image;text;certificate\r\n" + ROWS).encode("utf-16"),
        ("image;text;certificate\r\n" + ROWS).encode("utf-16-le"),
        b"\xfe\xff" + ("image;text;certificate\r\n" + ROWS).encode("utf-16-be"),
        ("image;text;certificate\r\n" + ROWS).encode("cp1252"),
    ],
)
def test_as_excel_writes(tmp_path, content):
    assert texts(tmp_path, content) == RIGHT


def test_empty_rows_and_columns_without_a_name_are_counted(tmp_path):
    rows, account = read(tmp_path, "image,text,certificate,,\na,b,c,,\n,,,,\nd,e,f,x,\n,,,,\n")
    assert len(rows) == 2 and account.there == 4 and sum(account.passed_over.values()) == 2
    assert any("column 4" in note for note in account.notes) and "column 5" not in str(account.notes)
    assert "4 rows: 2 read, 2 passed over" in lines_of(account.as_dict(), "rows")


def test_a_header_that_is_nearly_ours_is_said(tmp_path):
    _, account = read(tmp_path, 'image;text;certificate;"box (x, y, w, h)"\na;b;c;1 2 3 4\n')
    assert any("box (x, y, w, h)" in note for note in account.notes)


@pytest.mark.parametrize("encoding", ["mac_roman", "cp850"])
def test_another_encoding_is_refused_not_guessed(tmp_path, encoding):
    with pytest.raises(ValueError, match=r"not UTF-8 CSV, nor cp1252: see line 3"):
        read(tmp_path, "image,text,certificate\na,b,c\na,décès à l'hôpital,c\n".encode(encoding))


def test_utf_8_with_one_broken_byte_is_no_cp1252(tmp_path):
    with pytest.raises(ValueError, match=r"not UTF-8 CSV: line 3 .*save it"):
        read(tmp_path, "image,text,certificate\na,décès,c\n".encode() + b"a,d\xe9c,c\n")


@pytest.mark.parametrize("quoted", [False, True])
def test_a_row_of_other_columns_is_named(tmp_path, quoted):
    good = '"a","b","c"\n' if quoted else "a,b,c\n"
    with pytest.raises(ValueError, match=r"row 3 has 2, not 3"):
        read(tmp_path, "image,text,certificate\n" + 2 * good + "a,b\n" + good)


def test_whole_numbers_that_pandas_made_floats(tmp_path):
    rows, _ = read(tmp_path, "image,text,certificate,page,line,year\na,b,c,1.0,2.00,1999.0\na,b,d,1,3,1999\n")
    assert [(row["page"], row["line"], row["year"]) for row in rows] == [("1", "2", "1999"), ("1", "3", "1999")]


@pytest.mark.parametrize("name", ["s.xlsx", "s.tar", "s.xml"])
def test_what_is_no_table_gets_a_word_of_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=r"save its sheet|unpack it|name the folder"):
        read_source(tmp_path / name)


# ---------------------------------------------------------------- texts

SEEN = {
    "fédé\u00adration": "fédération",
    "la\u200bfédération": "lafédération",
    "\ufefffédération": "fédération",
    "auf\u200clage": "auflage",
    "12\u200e/05": "12/05",
    "❤\ufe0f coeur": "❤ coeur",
    "fe\u0301de\u0301ration": "fédération",
    "e\u034f\u0301": "é",
    "à l\u2019hôpital\u00a0: 3\u202fj": "à l\u2019hôpital : 3 j",
    "mort\tsubite\u2028ici": "mort subite ici",
    "o\ufb03ce q\u0303": "o\ufb03ce q\u0303",
    "Lau\uf502mitz": "Lau\uf502mitz",
    "\u05d0\u05d1\u05d2 mort": "\u05d0\u05d1\u05d2 mort",
}


@pytest.mark.parametrize("text", SEEN)
def test_what_nobody_sees_leaves_a_text_and_the_rest_stays(text):
    assert clean_text(text) == SEEN[text] and not not_text(clean_text(text))
    assert clean_text(clean_text(text)) == clean_text(text)


@pytest.mark.parametrize("strange", ["\0", "\ufff9", "\u202e", "\U0003fffd", "\ufdd0"])
def test_what_is_left_is_named_by_its_code_point(strange):
    assert not_text(clean_text(f"mort{strange}x")) == strange


def test_a_data_set_counts_what_its_texts_lost(tmp_path):
    from shards.index import merge
    from shards.plan import Settings, open_plan
    from shards.write import write_shard

    gray = np.full((64, 400), 230, np.uint8)
    cv2.putText(gray, "mort", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 40, 2)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    cells = ["mo\u00adrt\u00ad", "m\u200bort", "mort", "x\0"]
    lines = [f"a.png,{cell},c{n},train" for n, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("image,text,certificate,split\n" + "\n".join(lines), encoding="utf-8")
    plan, images = open_plan(tmp_path / "set", tmp_path / "t.csv", Settings(share=("image",)))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merge(plan)
    import json

    index = json.loads((tmp_path / "set" / "index.json").read_text(encoding="utf-8"))
    assert index["dropped"] == {"U+00AD": 2, "U+200B": 1} and invisible("m\u200bort") == ["\u200b"]
    assert index["rejects"] == {"text holds a control character (U+0000)": 1}
    assert index["alphabet"] == "mort"


def test_an_alphabet_is_of_nfc():
    charset = Charset("de\u0301ce\u0300s")
    assert charset.characters == "cdsèé" and not charset.missing("e\u0301")
    assert Charset(charset.characters) == charset and charset.decode(charset.encode("e\u0301")) == "é"


LONG = "n" * 150 + ".png"  # ustar has no such names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(["a.png", "décès/" + "é" * 40 + ".png", LONG], [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
        *product(["a.png", "décès/" + "é" * 40 + ".png"], [tarfile.USTAR_FORMAT]),
    ],
)
def test_images_in_tars_of_every_kind(tmp_path, name, kind):
    from shards.scans import Scans

    gray = np.full((20, 30), 200, np.uint8)
    (tmp_path / "i.png").write_bytes(cv2.imencode(".png", gray)[1].tobytes())
    base = name.rsplit("/", 1)[-1]
    with tarfile.open(tmp_path / "t.tar", "w", format=kind) as tar:
        tar.add(tmp_path / "i.png", base)
        tar.add(tmp_path / "i.png", "last.png")
    scans = Scans(tmp_path)
    assert np.array_equal(scans.read(f"t.tar/{base}"), gray) and np.array_equal(scans.read("t.tar/last.png"), gray)
