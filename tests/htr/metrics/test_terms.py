"""Categories in texts, what errors do to their counts, what acceptance selects: numbers that can be counted by hand."""

import csv
import json
import math
from pathlib import Path

import evaluated
import numpy as np
import pyarrow as pa
import pytest

from htr.metrics.significance import false_discovery, sign_flip
from htr.metrics.terms import FRENCH, Terms, bias, find, of_acceptance, plain, statistics
from jobs.cli.command_line import main
from jobs.evaluation import cause_statistics


@pytest.fixture(scope="module")
def french() -> Terms:
    return Terms.load(FRENCH)


def names_in(terms: Terms, text: str) -> set[str]:
    return {name for name, there in zip(terms.categories, terms.of([text])[0], strict=True) if there}


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("Choc septique", {"choc septique"}),
        ("INFARCTUS du myocarde", {"infarctus du myocarde"}),
        ("Œdème aigu du poumon sur cardiopathie ischémique",
         {"insuffisance cardiaque", "cardiopathie ischémique"}),
        ("pneumopathies d\u2019inhalation", {"pneumopathie", "pneumopathie d'inhalation"}),
        ("métastases hépatiques", {"cancer métastatique"}),
        ("altération de l'état général", {"altération de l'état général"}),
        ("arrêt cardio-respiratoire", {"arrêt cardiaque"}),
        ("AVC", {"AVC"}),
        ("avcx", set()),
        ("cancers du poumon", {"cancer"}),
        ("néoplasie", {"cancer"}),
        ("alcoolique chronique", {"alcool"}),
        ("chutée", set()),
        ("", set()),
        # a longer term has the words of a shorter one
        ("infarctus cérébral", {"AVC"}),
        ("infarctus cérébral, infarctus", {"AVC", "infarctus du myocarde"}),
        ("bronchopneumopathie chronique obstructive", {"BPCO"}),
        ("bronchite chronique puis bronchite", {"BPCO", "pneumopathie"}),
        # plurals, of abbreviations too
        ("accidents vasculaires cérébraux", {"AVC"}),
        ("hématomes sous-duraux", {"AVC"}),
        ("AVCs", {"AVC"}),
        # points, apostrophes, dashes, marks that nobody sees, ends of lines
        ("A.V.C.", {"AVC"}),
        ("I.D.M", {"infarctus du myocarde"}),
        ("Insuff. cardiaque", {"insuffisance cardiaque"}),
        ("AVC/HTA_IRC", {"AVC", "hypertension", "insuffisance rénale"}),
        ("maladie d\u02bcAlzheimer", {"démence"}),
        ("SARS\u2013CoV-2", {"COVID-19"}),
        ("hématome sous\u2011dural", {"AVC"}),
        ("dénu\u00adtrition", {"dénutrition"}),
        ("\ufb01brose pulmonaire", {"fibrose pulmonaire"}),
        ("insuffisance\ncardiaque", {"insuffisance cardiaque"}),
        ("insuffi-\nsance cardiaque", {"insuffisance cardiaque"}),
        ("pneumo- pathie", {"pneumopathie"}),
        ("AVC- HTA", {"AVC", "hypertension"}),
        # what is denied is not there
        ("pas de diabète", set()),
        ("absence d\u2019HTA", set()),
        ("AVC sans HTA ni diabète", {"AVC"}),
        ("pas d'antécédent de cancer, diabète", {"diabète"}),
        ("aucune métastase", set()),
        ("pas de soins, cancer", {"cancer"}),
        ("cancer non à petites cellules", {"cancer"}),
    ],
)  # fmt: skip
def test_which_categories_a_text_has(french: Terms, text: str, categories: set[str]):
    assert names_in(french, text) == categories


def test_a_term_may_be_one_of_a_negation(tmp_path: Path):
    (tmp_path / "t.csv").write_text("term,category\nabsence de soins,soins\nsoins,soins\nsans abri,rue\nchoc,rue\n")
    own = Terms.load(tmp_path / "t.csv")
    assert [names_in(own, text) for text in ("absence de soins", "sans-abri", "sans choc", "pas de sans abri")] == [
        {"soins"}, {"rue"}, set(), set()]  # fmt: skip


def test_a_value_that_is_another_is_lost_and_gained_where_it_is_accepted(tmp_path: Path):
    """As in all readings: of the three texts two clusters have misread it, whatever the sum says."""
    (tmp_path / "t.csv").write_text("term,category\ngrippe,grippe\n")
    found = find(Terms.load(tmp_path / "t.csv"), ["3 j", "3 j", "3 j"], ["5 j", "4 j", "3 jours"])
    taken, read = of_acceptance(found, np.ones(3, bool), np.arange(3)), statistics(found, np.arange(3))
    for name in ("bias", "bias_interval", "p", "small"):
        assert taken["value: duration"][name] == read["value: duration"][name]


def test_the_french_table_is_whole(french: Terms):
    """Each term is found by its own pattern, and no term stands in it twice."""
    with open(FRENCH, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({plain(row["term"]) for row in rows}) == len(rows) > 100 and len(french.categories) > 50
    for row in rows:
        assert row["category"] in names_in(french, row["term"].replace("*", "")), row


@pytest.mark.parametrize(
    ("content", "match"),
    [("a,b\n1,2\n", "columns term and category"), ("term,category\n", "and a row at least"),
     ("term,category\ngrippe,\n", "row 2 lacks"), ("term,category\nx,y\n,z\n", "row 3 lacks"),
     ("term,category\n*,z\n", "row 2 lacks"), ("term,category\nx,y\n*ite,z\n", "row 3: a term begins with")],
)  # fmt: skip
def test_what_is_no_table_of_terms(tmp_path: Path, content: str, match: str):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=match):
        Terms.load(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="no such table"):
        Terms.load(tmp_path / "none.csv")


def test_counts_recall_precision_and_bias(tmp_path: Path):
    (tmp_path / "t.csv").write_text("term,category\ngrippe,grippe\nchute,chute\nasthme,asthme\n")
    references = ["grippe", "grippe", "grippe", "grippe", "rien", "rien", "3 jours", "3 jours"]
    readings = ["grippe", "gripe", "gripe", "grippe", "grippe", "chute", "trois jours", "5 jours"]
    found = find(Terms.load(tmp_path / "t.csv"), references, readings)
    about = statistics(found, np.arange(8) // 2)
    assert set(about) == {"grippe", "chute", "value: duration"}  # what is nowhere is left out
    flu, fall, value = about["grippe"], about["chute"], about["value: duration"]
    assert (flu["texts"], flu["read"], flu["both"]) == (4, 3, 2)
    assert flu["recall"]["value"] == 0.5 and flu["precision"]["value"] == pytest.approx(2 / 3)
    assert flu["bias"] == -0.25 and flu["bias_interval"][0] < -0.25 < flu["bias_interval"][1]
    assert flu["p"] == sign_flip(np.array([-1, -1, 1, 0])) and flu["small"]
    assert fall["bias"] is fall["recall"]["value"] is None and fall["precision"]["value"] == 0
    assert (value["texts"], value["read"], value["both"], value["bias"]) == (2, 2, 1, 0)
    assert [row["q"] for row in about.values()] == false_discovery([row["p"] for row in about.values()])


def test_acceptance_by_category(tmp_path: Path):
    (tmp_path / "t.csv").write_text("term,category\ngrippe,grippe\n")
    references, readings = ["grippe"] * 4 + ["rien"] * 2, ["grippe", "gripe", "gripe", "grippe", "grippe", "grippe"]
    accepted = np.array([True, True, False, False, True, False])
    found = find(Terms.load(tmp_path / "t.csv"), references, readings)
    flu = of_acceptance(found, accepted, np.arange(6) // 2)["grippe"]
    # one text with it is lost among the accepted, one without it gains it; those keyed are right
    assert flu["coverage"]["value"] == 0.5 and flu["bias"] == 0.0 and flu["texts"] == 4


def test_the_interval_of_a_bias_covers_it_where_enough_is_misread():
    rng, hits, marked, runs = np.random.default_rng(0), 0, 0, 300
    for seed in range(runs):
        texts = rng.geometric(1 / 15, 300)
        having = rng.binomial(texts, np.minimum(rng.gamma(1.5, 0.1 / 1.5, 300), 1))
        missed = rng.binomial(having, np.minimum(rng.gamma(1.5, 0.1 / 1.5, 300), 1))
        found = bias(missed, rng.binomial(texts - having, 0.004), having, seed)
        low, high = found["bias_interval"]
        hits, marked = hits + (low <= -0.1 + 0.9 * 0.004 / 0.1 <= high), marked + found["small"]
    assert abs(hits / runs - 0.95) <= 0.02 + 2 * math.sqrt(0.95 * 0.05 / runs) and marked < 0.05 * runs
    few = bias(np.r_[1, np.zeros(99)], np.zeros(100), np.full(100, 2.0))
    assert few["small"] and few["bias"] == -1 / 200
    none = bias(np.zeros(100), np.zeros(100), np.r_[np.full(40, 2.0), np.zeros(60)])
    end = 1 - 0.025 ** (1 / 40)  # of the 40 clusters that have it
    assert none["bias"] == 0 and none["bias_interval"] == pytest.approx([-end, end]) and none["small"]


@pytest.mark.parametrize("kind", ["missed", "invented"])
def test_the_interval_of_a_bias_of_one_kind_covers_it(kind: str):
    """Misses alone, or inventions alone, of hands that differ: 93 to 97 % of 95, within what 600 draws leave open."""
    rng, hits, runs, n = np.random.default_rng(1), 0, 600, 500
    for seed in range(runs):
        texts = rng.geometric(1 / 15, n)
        having = rng.binomial(texts, np.minimum(rng.gamma(1.5, 0.1 / 1.5, n), 1))
        of, mean = (having, 0.1) if kind == "missed" else (texts - having, 0.01)
        events, none = rng.binomial(of, np.minimum(rng.gamma(1.5, mean / 1.5, n), 1)), np.zeros(n)
        pair = (events, none) if kind == "missed" else (none, events)
        low, high = bias(*pair, having, seed)["bias_interval"]
        hits += low <= (-0.1 if kind == "missed" else 0.09) <= high
    noise = 2 * math.sqrt(0.95 * 0.05 / runs)
    assert 0.93 - noise <= hits / runs <= 0.97 + noise


# --- the verb


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = evaluated.run(tmp_path / "ctc", {"dev": 80, "calibration": 300, "test": 60}, easy=1.0, writers=20)
    parts = ["--fit", "dev", "--choose", "calibration", "--judge", "test", "--by", "unit"]
    assert main(["calibrate", "--run", str(run), *parts, "--unit", "field", "--alpha", "0.2", "--name", "p"]) == 0
    return run


def test_terms_and_selection_of_an_evaluation(run: Path, tmp_path: Path):
    (tmp_path / "t.csv").write_text("term,category\nhemorragie cerebrale,AVC\nhemorragie,saignement\n")
    said = cause_statistics.write(run / "evaluation" / "test", str(tmp_path / "t.csv"), run / "reliability" / "p")
    folder = run / "evaluation" / "test"
    terms, chosen = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("terms", "selection")
    )
    rows = pa.concat_tables([pa.parquet.read_table(path) for path in sorted((folder / "parts").iterdir())]).to_pylist()
    stroke = terms["categories"]["AVC"]
    assert terms["unit"] == "writer" and terms["clusters"] == 20 and terms["texts"] == len(rows)
    assert stroke["texts"] == len(rows) and stroke["read"] == sum(
        "hemorragie cerebrale" in r["hypothesis"] for r in rows
    )
    assert stroke["recall"]["value"] == pytest.approx(stroke["read"] / len(rows)) and stroke["precision"]["value"] == 1
    assert chosen["promise"] == "p" and 0.2 < chosen["coverage"] < 1
    for column in ("field",):
        assert sum(row["texts"] for row in chosen["by"][column].values()) == len(rows)
        total = sum(row["texts"] * row["coverage"]["value"] for row in chosen["by"][column].values())
        assert total == pytest.approx(chosen["accepted"])
    assert set(chosen["writers"]["quantiles"]) == {"0.1", "0.5", "0.9"} and chosen["writers"]["groups"] == 20
    # what acceptance takes is better than what is read on the whole
    assert abs(chosen["categories"]["AVC"]["bias"]) < abs(stroke["bias"])
    assert "recall" in said[0] and any("by field" in line for line in said)
    for text in (
        "\n".join(said),
        *((folder / f"{name}.json").read_text(encoding="utf-8") for name in ("terms", "selection")),
    ):
        assert evaluated.CANARY not in text and "test-1" not in text


def test_readings_made_otherwise_are_not_selected(run: Path):
    path = run / "evaluation" / "test" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"batch": 3}))
    with pytest.raises(ValueError, match="batch 3 in place of 16"):
        cause_statistics.write(run / "evaluation" / "test", None, run / "reliability" / "p")
