"""The verb review, over HTTP: answers, undo, blind rows, two operators, what comes out."""

import json
from pathlib import Path

import pytest
from beating import beating
from keyed import CANARY, answer, ask, begin, identity, post, rows_of, serving, table

from jobs.cli.command_line import main
from shards.sample import NOT_YET


@pytest.fixture
def running(tmp_path: Path):
    with serving(table(tmp_path, 30), log=tmp_path / "log") as server:
        yield server


def test_what_is_keyed_comes_out_byte_for_byte(running, tmp_path: Path):
    tab = begin(running)
    rows = post(running, "next", tab=tab, count=6)["rows"]
    assert rows[0]["start"] == f"{CANARY} 0" and rows[0]["alternatives"] == ["choc 0", "grippe 0"]
    assert rows[0]["words"] == [0.99, 0.5] and not rows[0]["blind"]
    meant = ["Œdème  aigu, 3 j", "deux\nlignes", ' "un" ; ,,', "", "[illisible]", "[raturé]"]
    for row, text, kind in zip(rows, meant, ("text", "text", "text", "blank", "illegible", "crossed"), strict=True):
        assert "refused" not in answer(running, tab, row["row"], text, kind)
    assert running.stop() == 0
    after, before = rows_of(tmp_path / "review-keyed.csv"), rows_of(tmp_path / "review.csv")
    assert [row["text"] for row in after[:6]] == meant and {row["reject"] for row in after[:6]} == {""}
    assert after[6:] == before[6:] and {row["reject"] for row in before} == {NOT_YET}
    same = [name for name in before[0] if name not in ("text", "reject")]
    assert all(a[name] == b[name] for a, b in zip(after, before, strict=True) for name in same)


def test_the_same_answer_sent_twice_is_one_and_a_row_is_answered_once(running, tmp_path: Path):
    tab, other = begin(running), begin(running, "Bertrand")
    [row] = post(running, "next", tab=tab, count=1)["rows"]
    one = identity()
    for _ in range(3):
        assert "refused" not in answer(running, tab, row["row"], "grippe", id=one)
    assert answer(running, other, row["row"], "autre") == {"refused": "answered"}
    assert answer(running, other, row["row"], "grippe", id=one) == {"refused": "id"}  # somebody else's
    assert answer(running, tab, row["row"] + 1, "grippe", id=one) == {"refused": "id"}  # another row's
    journal = (tmp_path / "review.csv.keying" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([line for line in journal if '"grippe"' in line and f'"row":{row["row"]},' in line]) == 1


def test_undo_gives_the_row_back_and_keeps_the_history(running, tmp_path: Path):
    tab = begin(running)
    first, second = post(running, "next", tab=tab, count=2)["rows"]
    answer(running, tab, first["row"], "un")
    answer(running, tab, second["row"], "deux")
    one = identity()
    for _ in range(2):  # sent twice, taken back once
        found = post(running, "undo", tab=tab, id=one)
        assert found["item"]["row"] == second["row"] and found["item"]["given"] == {"kind": "text", "text": "deux"}
    assert found["done"] == 1
    assert post(running, "undo", tab=tab, id=identity())["item"]["row"] == first["row"]
    assert post(running, "undo", tab=tab, id=identity()) == {"refused": "nothing"}
    answer(running, tab, second["row"], "trois")
    assert running.stop() == 0
    assert [row["text"] for row in rows_of(tmp_path / "review-keyed.csv")[:2]] == ["", "trois"]
    journal = (tmp_path / "review.csv.keying" / "journal.jsonl").read_text(encoding="utf-8")
    assert '"un"' in journal and '"deux"' in journal and journal.count("withdraws") == 2


def test_a_sample_is_blind_and_its_table_is_what_monitor_takes(tmp_path: Path):
    made = table(tmp_path, 12, "review-sample.csv", shown=False)
    with serving(made, log=tmp_path / "log") as running:
        tab = begin(running)
        while rows := post(running, "next", tab=tab, count=5)["rows"]:
            for row in rows:
                assert row["blind"] and (row["start"], row["words"], row["alternatives"]) == ("", [], [])
                answer(running, tab, row["row"], f"saisi {row['line']}")
        assert running.stop() == 0
    keyed = rows_of(tmp_path / "review-sample-keyed.csv")
    assert [row["text"] for row in keyed] == [f"saisi {n}" for n in range(12)] and {row["reject"] for row in keyed} == {
        ""
    }


def test_texts_of_which_a_sample_is_drawn(tmp_path: Path):
    """Of what was accepted a sample is keyed blind and first; what is wrong in it bounds the rest."""
    decisions = ["accept" if n % 2 else "review" for n in range(60)]
    made = table(tmp_path, 60, "texts.csv", text=[f"{CANARY} {n}" for n in range(60)], decision=decisions,
                 alternatives=[json.dumps([["choc", 0.3]])] * 60, reason=[""] * 60)  # fmt: skip
    with serving(made, "--sample", 10, "--seed", 3, log=tmp_path / "log") as running:
        tab, wrong = begin(running), 0
        rows = post(running, "next", tab=tab, count=8)["rows"] + post(running, "next", tab=tab, count=4)["rows"]
        assert [row["blind"] for row in rows] == [True] * 10 + [False] * 2
        assert all(int(row["line"]) % 2 for row in rows[:10]) and CANARY not in json.dumps(rows[:10])
        assert rows[10]["start"] == f"{CANARY} {rows[10]['line']}" and rows[10]["alternatives"] == ["choc"]
        for row in rows:
            wrong += row["row"] == 2
            answer(running, tab, row["row"], "autre" if row["row"] == 2 else f"{CANARY}  {row['line']}")
        [accepted] = json.loads(ask(running, "figures")[2])["accepted"]
        assert (accepted["wrong"], accepted["sampled"], accepted["units"]) == (1, 10, 30)
        assert 1 / 30 < accepted["bound"] < 1 and accepted["rate"] == 0.1
        assert running.stop() == 0
    from jobs.monitor import accepted_units, parts_of_both, read, sample_of

    path = tmp_path / "texts-keyed-sample.csv"
    both = read(made, ("certificate", "field", "text", "decision")), read(path, ("certificate", "field", "text"))
    parts = parts_of_both(*both)
    accepted, _ = accepted_units(both[0], "line", parts)
    typed = sample_of(accepted, both[1], "line", path, parts)
    assert len(typed) == 10 and sum(texts != accepted[name] for name, texts in typed.items()) == 1  # as monitor counts
    keyed, sample = (rows_of(tmp_path / f"texts-keyed{end}.csv") for end in ("", "-sample"))
    assert len(keyed) == 30 and sum(row["text"] != "" for row in keyed) == 2 and len(sample) == 10
    assert "reading" in keyed[0] and "reading" not in sample[0] and {row["reject"] for row in sample} == {""}


def test_two_people_and_a_third_where_they_differ(tmp_path: Path):
    with serving(table(tmp_path, 20), "--double", 1, log=tmp_path / "log") as running:
        tabs = {name: begin(running, name) for name in ("Anne", "Bertrand")}
        for name, tab in tabs.items():
            for row in [row for _ in range(3) for row in post(running, "next", tab=tab, count=8)["rows"]]:
                assert row["blind"] and CANARY not in json.dumps(row)
                if row["line"] == "7" and name == "Anne":
                    answer(running, tab, row["row"], kind="illegible")
                else:
                    answer(
                        running,
                        tab,
                        row["row"],
                        "différent" if (row["line"], name) == ("4", "Anne") else f"é {row['line']}",
                    )
        assert post(running, "next", tab=begin(running, " anne "), count=3)["rows"] == []  # nobody twice
        third = begin(running, "Chloé")
        rows = {row["line"]: row for row in post(running, "next", tab=third, count=8)["rows"]}
        assert set(rows) == {"4", "7"} and {row["role"] for row in rows.values()} == {"settle"}
        assert sorted(rows["4"]["alternatives"]) == ["différent", "é 4"]
        answer(running, third, rows["4"]["row"], "é 4")
        found = json.loads(ask(running, "figures")[2])
        assert found["agreement"]["rows"] == 19 and found["agreement"]["exact"] == pytest.approx(18 / 19)
        assert found["agreement"]["uncertain"] == 1 and found["waiting"] == 1 and found["done"] == 19
        low, high = found["agreement"]["exact_interval"]
        assert low < 18 / 19 < high and set(found["agreement"]["by"]) == {"Ia", "II"}
        assert running.stop() == 0
    keyed = rows_of(tmp_path / "review-keyed.csv")
    assert keyed[4]["text"] == "é 4" and keyed[7]["reject"] == NOT_YET


def test_a_question_goes_to_a_colleague(running):
    tab, other = begin(running), begin(running, "Bertrand")
    [row] = post(running, "next", tab=tab, count=1)["rows"]
    assert answer(running, tab, row["row"], kind="ask") == {"refused": "kind"}
    answer(running, tab, row["row"], kind="ask", note="est-ce « grippe » ?")
    assert row["row"] not in [r["row"] for r in post(running, "next", tab=tab, count=8)["rows"]]
    [first, *_] = post(running, "next", tab=other, count=3)["rows"]
    assert first["row"] == row["row"] and first["notes"] == ["est-ce « grippe » ?"]


def test_a_table_that_audit_wrote(tmp_path: Path):
    labels = [f"label {n}" for n in range(10)]
    own = {"audit_row": [str(n) for n in range(10)], "audit_text": labels, "audit_probability": ["0.9"] * 10,
           "audit_reading": [f"read {n}" for n in range(10)]}  # fmt: skip
    made = table(tmp_path, 10, "audit.csv", shown=False, text=labels, reject=[""] * 10, **own)
    with serving(made, log=tmp_path / "log") as running:
        tab = begin(running)
        rows = post(running, "next", tab=tab, count=8)["rows"]
        assert rows[0]["start"] == "label 0" and rows[0]["alternatives"] == ["read 0"]
        answer(running, tab, rows[0]["row"], "read 0")
        answer(running, tab, rows[1]["row"], "label 1")
        assert running.stop() == 0
    keyed = rows_of(tmp_path / "audit-keyed.csv")
    assert [row["text"] for row in keyed] == ["read 0", *labels[1:]]
    source = table(tmp_path, 10, "source.csv", shown=False, text=labels, reject=[""] * 10)
    asked = ["--source", str(source), "--out", str(tmp_path / "mended.csv")]
    assert main(["audit", "--apply", str(tmp_path / "audit-keyed.csv"), *asked]) == 0
    assert [row["text"] for row in rows_of(tmp_path / "mended.csv")] == ["read 0", *labels[1:]]


def test_one_server_a_table_and_the_same_table(running, tmp_path: Path, capsys):
    made = tmp_path / "review.csv"
    assert main(["review", str(made), "--write"]) == 1
    assert "open in another review (process" in capsys.readouterr().err
    running.stop()
    assert main(["review", str(made), "--write", "--double", "0.5"]) == 1
    assert "begun with another double" in capsys.readouterr().err
    content = made.read_bytes()
    made.write_bytes(content.replace(b"c0", b"cx"))
    assert main(["review", str(made), "--write"]) == 1
    assert "not the table that" in capsys.readouterr().err
    made.write_bytes(content)
    keyed = tmp_path / "review-keyed.csv"
    keyed.write_text(keyed.read_text(encoding="utf-8").replace(NOT_YET, "", 1))
    assert main(["review", str(made), "--write"]) == 1
    said = capsys.readouterr().err
    assert "was changed since it was written, perhaps by hand: give --out another name" in said and CANARY not in said


def test_who_has_lost_the_table_acknowledges_nothing_more(running, tmp_path: Path):
    """As after a stop of more than a minute, when a server elsewhere has taken the table over."""
    tab = begin(running)
    assert "refused" not in answer(running, tab, 0, "grippe")
    lock = tmp_path / "review.csv.keying" / "lock"
    lock.unlink()
    lock.write_text("elsewhere 1")
    status, _, content = ask(
        running, "answer", {"tab": tab, "id": identity(), "row": 1, "kind": "text", "text": "choc"}
    )
    assert status == 503 and json.loads(content) == {"refused": "disk"}
    assert len((tmp_path / "review.csv.keying" / "journal.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("off", [-7200, 0, 7200])
def test_a_server_elsewhere_that_beats_keeps_the_table_though_its_clock_is_two_hours_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, off: int
):
    made = table(tmp_path, 3)
    (tmp_path / "review.csv.keying").mkdir()
    lock = tmp_path / "review.csv.keying" / "lock"
    lock.write_text("elsewhere 1")
    with beating(lock, off):
        assert main(["review", str(made), "--write"]) == 1
        assert "(process 1 on elsewhere), which is seen to live" in capsys.readouterr().err
    monkeypatch.setattr("jobs.review.SILENT_FOR_S", 0.3)
    assert main(["review", str(made), "--write"]) == 0 and not lock.exists()


def test_what_cannot_be_keyed(tmp_path: Path, capsys, write_table):
    def fails(match: str, *words: object) -> None:
        assert main(["review", *map(str, words), "--write"]) == 1
        said = capsys.readouterr().err
        assert match in said and CANARY not in said

    made = table(tmp_path, 3)
    fails("no such table", tmp_path / "none.csv")
    fails("not a table that people key", write_table(tmp_path / "other.csv", [{"image": "a", "text": CANARY}]))
    texts = table(tmp_path, 3, "less.csv", decision=["review"] * 3, reason=[""] * 3)
    for lost in ("reason", "alternatives", "box"):
        kept = [{name: cell for name, cell in row.items() if name != lost} for row in rows_of(texts)]
        fails(f"no column {lost} (it has ", write_table(tmp_path / f"no-{lost}.csv", kept))
    headless = tmp_path / "headless.csv"
    headless.write_text(f"a.png,{CANARY}\nb.png,{CANARY}\n", encoding="utf-8")
    fails("its first line, not shown, names none of ours", headless)
    fails("--sample draws from what was accepted", made, "--sample", 3)
    fails("--double is a share", made, "--double", 1.5)
    fails("named twice", made, made)
    away = table(tmp_path, 2, "texts.csv", image=["gone.png"] * 2, decision=["review"] * 2, reason=[""] * 2)
    fails("say with --images", away)
    fails("so that preprocess finds them", made, "--out", tmp_path / "pages" / "out.csv")
    plain = table(tmp_path, 3, "plain.csv", probability=[""] * 3, confidence=[""] * 3)
    fails("no column probability or confidence", plain,
          "--order", "unsure")  # fmt: skip
    shifted = table(tmp_path, 3, "shifted.csv", probability=[CANARY] * 3)
    fails("column probability has cells that are no numbers", shifted, "--order", "unsure")


def test_pictures(running):
    import cv2
    import numpy as np

    sizes = []
    for view in ("crop", "around", "whole"):
        status, headers, content = ask(running, f"image/3/{view}")
        assert status == 200 and headers["content-type"] == ("image/png" if view == "crop" else "image/jpeg")
        sizes.append(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[:2])
    assert sizes[0] == (44 + 2 * 15, 520 + 2 * 22) and sizes[0] < sizes[1] <= sizes[2] == (640, 620)


def test_words_are_suggested_when_asked(tmp_path: Path):
    words = tmp_path / "words.txt"
    words.write_text("grippe\ngrippé\nGriffe\nchoc\n", encoding="utf-8")
    with serving(table(tmp_path, 3), "--lexicon", words, log=tmp_path / "log") as running:
        tab = begin(running)
        assert post(running, "suggest", tab=tab, beginning="GRIPP")["words"] == ["grippe", "grippé"]
        assert post(running, "suggest", tab=tab, beginning="grif")["words"] == ["Griffe"]
        assert post(running, "suggest", tab=tab, beginning="")["words"] == []


def test_the_figures_stand_in_the_report(tmp_path: Path):
    import made

    run = made.run(tmp_path / "run")
    reviewed = table(tmp_path, 30)
    with serving(reviewed, "--double", 1, "--run", run, log=tmp_path / "log") as running:
        for name in ("Anne", "Bertrand"):
            tab = begin(running, name)
            for row in post(running, "next", tab=tab, count=8)["rows"]:
                answer(
                    running, tab, row["row"], f"{CANARY} {row['line']}{' x' * (row['line'] == '3' and name == 'Anne')}"
                )
        assert running.stop() == 0
    (run / "keying" / "broken.json").write_text("{}")
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="keying"' in page and "keyed by two" in page and "87.5" in page and "can&#39;t be shown" not in page
    assert "can't be shown" in page and CANARY not in page and "Anne" not in page
