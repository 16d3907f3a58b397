"""Abbreviations: which texts are as right as the one that was typed."""

import pytest

from htr.certificate import clean_text
from htr.charset import Charset
from htr.references import MAX_TEXTS, TABLE, References

PAIRS = [
    ("IDM", "infarctus du myocarde"),
    ("K", "cancer"),
    ("K", "carcinome"),
    ("AC/FA", "arythmie complète par fibrillation auriculaire"),
    ("ACFA", "arythmie complète par fibrillation auriculaire"),
    ("mts", "métastases"),
    ("IRC", "insuffisance rénale chronique"),
    ("chr", "chronique"),
]


@pytest.fixture
def references() -> References:
    return References.of(PAIRS)


def test_the_text_itself_comes_first(references):
    assert references.variants("chute") == ["chute"]
    assert references.variants("") == [""]
    assert references.variants("suite d'IDM") == ["suite d'IDM", "suite d'infarctus du myocarde"]
    assert references.variants("suite d'infarctus du  myocarde") == ["suite d'infarctus du myocarde", "suite d'IDM"]


def test_every_subset_of_what_is_found(references):
    found = references.variants("un IDM, un K mts")
    assert len(found) == len(set(found)) == 2 * 3 * 2
    assert "un infarctus du myocarde, un carcinome métastases" in found
    changed = [sum(word not in text for word in ("IDM", "K", "mts")) for text in found]
    assert changed == sorted(changed)  # fewer changes first
    assert references.variants("un IDM, un K mts", most=5) == found[:5]


@pytest.mark.parametrize("text", ["IDMS", "xIDM", "OK", "K2", "mtsa", "chrono"])
def test_whole_words_only(references, text):
    assert references.variants(text) == [text]


def test_case(references):
    assert references.variants("un idm")[1:] == ["un infarctus du myocarde"]
    # where a text begins, nobody knows how it was typed
    assert references.variants("K du sein")[1:] == ["cancer du sein", "Cancer du sein", "carcinome du sein",
                                                    "Carcinome du sein"]  # fmt: skip
    assert references.variants("INFARCTUS DU MYOCARDE ANCIEN")[1:] == ["IDM ANCIEN"]
    assert references.variants("METASTASES DU K") == ["METASTASES DU K", "METASTASES DU CANCER",
                                                      "METASTASES DU CARCINOME"]  # fmt: skip


def test_the_longest_match_wins(references):
    assert references.variants("une insuffisance rénale chronique")[1:] == ["une IRC"]
    assert references.variants("une AC/FA") == ["une AC/FA", "une arythmie complète par fibrillation auriculaire"]
    assert set(references.variants("par arythmie complète par fibrillation auriculaire")[1:]) == {
        "par AC/FA",
        "par ACFA",
    }


def test_bounded_however_many_there_are(references):
    text = " ".join(["K mts IDM IRC chr"] * 60)
    found = references.variants(text)
    assert len(found) == MAX_TEXTS and found[0] == text
    assert found == references.variants(text)


def test_targets_of_a_charset(references):
    charset = Charset("un IDMifarctsdmyoek")
    assert references.targets("un IDM", charset) == [
        charset.encode("un IDM"),
        charset.encode("un infarctus du myocarde"),
    ]
    # é is lacking
    assert references.targets("un mts", Charset("un mts")) == [Charset("un mts").encode("un mts")]
    with pytest.raises(ValueError, match="the charset lacks: 'z'"):
        references.targets("un IDMz", charset)


def test_a_table_of_one_s_own(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("abbreviation,expansion,note\nIDM,infarctus du myocarde,x\n", encoding="utf-8-sig")
    assert References.load(path).variants("un IDM") == ["un IDM", "un infarctus du myocarde"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"abbreviation,meaning\nIDM,x\n", "no column expansion"),
        (b"", "no column abbreviation, expansion"),
        (b"abbreviation,expansion\n", "without rows"),
        (b"abbreviation,expansion\nIDM,infarctus\nK,\n", "empty abbreviation or expansion in line 3"),
        (b"abbreviation,expansion\nIDM\n", "in line 2"),
        (b"abbreviation,expansion\nn\xe9o,x\n", "not a CSV file in UTF-8"),
    ],
)
def test_a_table_that_is_wrong(tmp_path, content, reason):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        References.load(path)
    assert str(path) in str(error.value) and "infarctus" not in str(error.value)


def test_the_table_of_the_project():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split(",")) for line in lines[1:]]
    assert 60 <= len(pairs) <= 120 and len(set(pairs)) == len(pairs)
    assert all(clean_text(part) == part for pair in pairs for part in pair)
    references = References.load()
    assert {"IDM ancien", "infarctus du myocarde ancien"} <= {*references.variants("IDM ancien")}
    assert references.variants("le patient est mort, sans autre cause, à sa maison") == [
        "le patient est mort, sans autre cause, à sa maison"
    ]
    for abbreviation, expansion in pairs:
        assert f"un {expansion}" in references.variants(f"un {abbreviation}")
        assert f"un {abbreviation}" in references.variants(f"un {expansion}")
