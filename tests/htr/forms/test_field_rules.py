import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.forms.field_rules import Rule, contradictions, rules_of
from htr.forms.registration import Forms
from htr.forms.template import digest_of_forms, load_template, load_templates, write_template
from htr.io.sources import read_source
from htr.reader import Prediction
from htr.scan import CutField
from htr.synth.draw_forms import draw
from htr.synth.simulate import simulate
from jobs.evaluation.contradictions import count_contradictions, ticks_of
from jobs.transcription.predictions import field_row, with_contradictions
from jobs.transcription.results import decide
from shards.index import merge
from shards.plan import Settings, make_plan
from shards.write import write_shard

KINDS = {"yes": "tick", "no": "tick", "birth": "text", "death": "text", "Ia": "text", "Ib": "text", "Ic": "text"}


def broken(rule, **texts):
    return rules_of([rule], KINDS)[0].broken_by(texts)


def test_of_a_group_of_boxes_one_may_be_ticked():
    rule = {"at_most": "one of", "fields": ["yes", "no"]}
    assert broken(rule, yes="1", no="1") == ("yes", "no")
    assert broken(rule, yes="1", no="0") == broken(rule, yes="0", no="0") == broken(rule, yes="1") == ()


def test_dates_do_not_decrease():
    rule = {"order": "dates", "fields": ["birth", "death"]}
    assert broken(rule, birth="3 mai 1950", death="02/05/1950") == ("birth", "death")
    assert broken(rule, birth="3 mai 1950", death="mai 1950") == ()  # a day from the third on
    assert broken(rule, birth="juin 1950", death="mai 1950") == ("birth", "death")
    for texts in (
        {"birth": "", "death": "1950-01-01"},
        {"birth": "hier", "death": "01/01/1950"},
        {"birth": "3 mai 1950"},
    ):
        assert broken(rule, **texts) == ()


def test_a_chain_of_durations_does_not_decrease():
    rule = {"order": "durations", "fields": ["Ia", "Ib", "Ic"]}
    assert broken(rule, Ia="2 h", Ib="3 jours", Ic="2 ans") == ()
    assert broken(rule, Ia="2 h", Ib="", Ic="1 h") == ("Ia", "Ic")
    assert broken(rule, Ia="1 mois", Ib="30 j", Ic="29 j") == ("Ib", "Ic")  # a month may be of 28 days
    assert broken(rule, Ia="environ 3 j", Ib="2 j") == () and broken(rule, Ia="> 3 j", Ib="2 j") == ("Ia", "Ib")
    assert broken(rule, Ia="< 3 j", Ib="2 j") == ()


def test_values_lie_between():
    rule = {"between": ["1900-01-01", "2030-12-31"], "fields": ["birth", "death"]}
    assert broken(rule, birth="12/03/1850", death="1 mai 2020") == ("birth",)
    rule = {"between": ["0 min", "120 ans"], "fields": ["Ia"]}
    assert broken(rule, Ia="130 ans") == ("Ia",) and broken(rule, Ia="3 j") == () and broken(rule, Ia="1200") == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"at_most": "one of"}, "rule 1: write it as"),
        ({"at_most": "two of", "fields": ["yes"]}, 'it is "at_most": "one of"'),
        ({"at_most": "one of", "fields": ["Ia"]}, "at_most is for tick boxes, not Ia"),
        ({"order": "dates", "fields": ["yes", "no"]}, "order is for text fields, not yes, no"),
        ({"order": "dates", "fields": ["birth"]}, 'it is "at_most"'),
        ({"order": "weights", "fields": ["Ia", "Ib"]}, 'it is "at_most"'),
        ({"order": "dates", "fields": ["birth", "burial"]}, "no such field: burial"),
        ({"order": "dates", "fields": ["birth", "birth"]}, "named twice"),
        ({"between": ["2 ans", "1 an"], "fields": ["Ia"]}, "the lesser first"),
        ({"between": ["2 ans", "1900-01-01"], "fields": ["Ia"]}, "two dates or two durations"),
        ({"between": ["x", "y"], "fields": ["Ia"]}, "two dates or two durations"),
        ({"between": [1, 2], "fields": ["Ia"]}, "two dates or two durations"),
        ({"order": "dates", "fields": "birth"}, "fields is a list"),
        ("at_most", "write it as"),
    ],
)
def test_a_wrong_rule_is_said(entry, message):
    with pytest.raises(ValueError, match=message):
        rules_of([entry], KINDS)


def test_rules_are_part_of_a_template(tmp_path):
    rules = (
        Rule("at_most", "one of", ("autopsy_yes", "autopsy_no")),
        Rule("order", "durations", ("Ia_interval", "Ib_interval")),
        Rule("between", ("0 min", "120 ans"), ("Ia_interval",)),
    )
    path = write_template(replace(draw("adult-2018"), rules=rules), tmp_path)
    assert load_template(path).rules == rules
    note = json.loads(path.read_text(encoding="utf-8"))
    note["rules"][0]["fields"].append("gone")
    path.write_text(json.dumps(note))
    with pytest.raises(ValueError, match=r"adult-2018\.json: rule 1: no such field: gone"):
        load_template(path)


def test_rules_change_no_data_set_but_what_is_transcribed(tmp_path):
    """Nothing is cut by them: a data set goes on. What contradicts is written by transcribe."""
    digests = []
    for rules in ((), (Rule("at_most", "one of", ("autopsy_yes", "autopsy_no")),)):
        folder = tmp_path / str(len(rules))
        write_template(replace(draw("adult-2018"), rules=rules), folder)
        digests.append((digest_of_forms(folder), digest_of_forms(folder, rules=True)))
    assert digests[0][0] == digests[1][0] == digests[0][1] != digests[1][1]


def test_each_field_says_what_it_contradicts():
    rules = rules_of([{"at_most": "one of", "fields": ["yes", "no"]}], KINDS)
    assert contradictions(rules, {"yes": "1", "no": "1"}) == {
        "yes": ["at most one of yes, no"],
        "no": ["at most one of yes, no"],
    }
    assert contradictions(rules, {"yes": "1", "no": "0"}) == {} == contradictions((), {"yes": "1", "no": "1"})


def test_rows_of_a_form_say_what_they_contradict():
    own = draw("adult-2018")
    template = replace(own, rules=(Rule("at_most", "one of", ("autopsy_yes", "autopsy_no")),))
    fields = [CutField(own.field(name), template, None) for name in ("autopsy_yes", "autopsy_no", "Ia")]
    rows = [{"field": field.field.name, "text": text} for field, text in zip(fields, ("1", "1", "1"), strict=True)]
    said = "at most one of autopsy_yes, autopsy_no"
    assert [row["contradicts"] for row in with_contradictions(rows, fields)] == [said, said, ""]
    assert with_contradictions([], []) == []


def test_a_line_left_out_as_a_stamps_is_named_beside_text_that_is_kept():
    own = draw("adult-2018")
    lines = {"boxes": ([0, 0, 9, 9], [0, 10, 9, 9]), "stray_aspects": (4.0, 4.0)}
    cut = CutField(own.field("circumstances"), own, [0, 0, 9, 19], **lines)
    short, dense = (Prediction(text, 0.99, {}, [], [], [], {}, []) for text in ("le 12", "une longue suite de mots"))
    said = {
        "left out as a stamp's: le 12": [short, dense],
        "": [dense, dense],
    }
    for expected, texts in said.items():
        [row] = with_contradictions([field_row({}, cut, texts)], [cut])
        assert row["contradicts"] == expected and dense.text in row["text"]
    blank = field_row({}, cut, [short, short])  # read as nothing: for review in any case
    assert (blank["text"], blank["contradicts"]) == ("", "")


def test_what_contradicts_is_for_review_however_sure():
    class Promise:
        scores, unit = ("line",), "certificate"

        def probability(self, table):
            return [1.0] * len(table)

        def accept(self, probability, lines):
            return probability >= 0.9

    rows = [
        {"certificate": "a", "field": "Ia", "text": "3 j", "confidence": 1.0, "confidences": [1.0], "reason": "",
         "contradicts": said}
        for said in ("", "order of Ia, Ib")
    ]  # fmt: skip
    ticks = [row | {"text": "1", "confidences": []} for row in rows]
    decided = decide(pa.Table.from_pylist(rows + ticks), Promise(), 0.8)
    assert decided["decision"].to_pylist() == ["accept", "review", "", "review"]


def test_an_evaluation_counts_them(tmp_path):
    rows = [
        {"certificate": name, "form": "f", "field": field, "line": "0", "hypothesis": read, "reference": typed}
        for name, field, read, typed in [
            ("c1", "Ia", "3 ans", "3 h"), ("c1", "Ib", "2 j", "2 j"),
            ("c2", "Ia", "1 j", "2 j"), ("c2", "Ib", "1 j", "1 j"),
            ("c3", "II", "diabete", "diabète"),
        ]
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows[:3]), tmp_path / "0.parquet")
    pq.write_table(pa.Table.from_pylist(rows[3:]), tmp_path / "1.parquet")
    rules = {"f": rules_of([{"order": "durations", "fields": ["Ia", "Ib"]}], KINDS)}
    found = count_contradictions([tmp_path / "0.parquet", tmp_path / "1.parquet"], rules)
    one = {"certificates": 1, "fields": 2, "rules": {"order of Ia, Ib": 1}}
    assert found == {"certificates": 2, "unknown_form": 0, "hypothesis": one, "reference": one}
    two = rules | {"g": rules["f"]}
    assert count_contradictions([tmp_path / "0.parquet"], {"x": two["f"], "y": two["g"]})["unknown_form"] == 2


def test_an_evaluation_counts_tick_boxes_of_the_data_set(tmp_path):
    rows = [{"certificate": name, "form": "f", "field": "Ia", "line": "0", "hypothesis": "3 j", "reference": "3 j"}
            for name in ("c1", "c2")]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "0.parquet")
    rules = {"f": rules_of([{"at_most": "one of", "fields": ["yes", "no"]}], KINDS)}
    ticks = [{"certificate": name, "form": "f", "field": field, "line": None, "hypothesis": read, "reference": typed}
             for name, field, read, typed in [
                 ("c1", "yes", "1", "1"), ("c1", "no", "1", "0"), ("c2", "yes", "0", "1"), ("c2", "no", "1", "1"),
                 ("not evaluated", "yes", "1", "1"), ("not evaluated", "no", "1", "1")]]  # fmt: skip
    one = {"certificates": 1, "fields": 2, "rules": {"at most one of yes, no": 1}}
    found = count_contradictions([tmp_path / "0.parquet"], rules, ticks)
    assert found == {"certificates": 2, "unknown_form": 0, "hypothesis": one, "reference": one}
    assert count_contradictions([tmp_path / "0.parquet"], rules)["certificates"] == 0


def test_tick_boxes_are_taken_from_a_data_set(tmp_path):
    """As typed, and as their ink says."""
    source = tmp_path / "certificates"
    simulate(source, 3, seed=5, severity="light", form="adult-2018")
    settings = Settings(unit="field", shares={"train": 1.0}, encoding="png", rows=60)
    table, images = read_source(source / "certificates.csv")
    plan, forms = make_plan(tmp_path / "fields", table, settings), Forms(load_templates())
    for number in range(len(plan.shards)):
        write_shard(plan, number, images, forms)
    dataset = merge(plan)
    ticks = ticks_of(dataset, "train", {})
    with (source / "certificates.csv").open(encoding="utf-8", newline="") as file:
        typed = {(row["certificate"], row["field"]): row["text"] for row in csv.DictReader(file)}
    assert len(ticks) >= 20 and {row["reference"] for row in ticks} == {"0", "1"}
    assert all(row["reference"] == typed[row["certificate"], row["field"]] for row in ticks)
    assert sum(row["hypothesis"] == row["reference"] for row in ticks) >= 0.95 * len(ticks)
    assert ticks_of(dataset, "train", {"gone": ["x"]}) == []


def test_the_forms_that_come_along_have_rules_that_their_simulated_ticks_keep():
    for template in load_templates():
        kinds = {field.name: field.kind for field in template.fields}
        assert rules_of([rule.note() for rule in template.rules], kinds) == template.rules
        assert sum(rule.kind == "at_most" for rule in template.rules) >= 4
        ticks = {"autopsy_yes": "1", "autopsy_no": "1"}
        assert set(contradictions(template.rules, ticks)) == set(ticks)
    adult = contradictions(load_templates()[0].rules, {"Ia_interval": "3 ans", "Ic_interval": "2 j"})
    assert set(adult) == {"Ia_interval", "Ic_interval"}


def said(rng, kind):
    """A date or a duration, written in one of the ways that people write it -> the text, its value in days or None."""
    if rng.random() < 0.15:
        return str(rng.choice(["", "inconnu", "?", "voir dossier"])), None
    if kind == "dates":
        day, month, year = (int(v) for v in rng.integers((1, 1, 1900), (29, 13, 2030)))
        ways = [f"{day:02d}/{month:02d}/{year}", f"{year}-{month:02d}-{day:02d}", f"{day}.{month}.{year}"]
        return str(rng.choice(ways)), 372 * year + 31 * month + day
    count = int(rng.integers(1, 60))
    unit, size = [("j", 1), ("jours", 1), ("semaines", 7)][rng.integers(3)]
    return f"{count} {unit}", count * size


@pytest.mark.parametrize("kind", ["dates", "durations"])
def test_a_chain_contradicts_where_two_of_it_are_out_of_order_and_nowhere_else(kind):
    rule = rules_of([{"order": kind, "fields": ["Ia", "Ib", "Ic", "birth", "death"]}], KINDS)[0]
    rng, seen = np.random.default_rng(19), set()
    for _ in range(300):
        written = {name: said(rng, kind) for name in rule.fields}
        texts = {name: text for name, (text, _) in written.items()}
        known = [(name, value) for name, (_, value) in written.items() if value is not None]
        wanted = {name for at, (first, value) in enumerate(known) for second, later in known[at + 1 :] if value > later
                  for name in (first, second)}  # fmt: skip
        before = dict(texts)
        assert set(rule.broken_by(texts)) == wanted
        assert texts == before  # no rule changes a reading
        for name in rule.fields:  # what is blanked takes contradictions away and adds none
            assert set(rule.broken_by(texts | {name: ""})) <= wanted - {name}
        in_order = dict(zip((n for n, _ in known), sorted((texts[n] for n, _ in known), key=lambda text: next(
            value for t, value in written.values() if t == text)), strict=True))  # fmt: skip
        assert rule.broken_by(dict.fromkeys(rule.fields, "") | in_order) == ()
        seen.add(bool(wanted))
    assert seen == {True, False}


def test_of_a_group_all_that_are_ticked_contradict_or_none():
    names = [f"box{n}" for n in range(5)]
    rule = rules_of([{"at_most": "one of", "fields": names}], dict.fromkeys(names, "tick"))[0]
    rng = np.random.default_rng(20)
    for _ in range(200):
        texts = {name: str(rng.choice(["0", "1", ""])) for name in names if rng.random() < 0.9}
        ticked = tuple(name for name in names if texts.get(name) == "1")
        assert rule.broken_by(texts) == (ticked if len(ticked) > 1 else ())
