"""Journal, answers, queue, order, agreement of review, each by itself."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from keyed import table

from jobs.cli.command_line import main
from jobs.keying import journal as journals
from jobs.keying.agreement import Pair, agreement
from jobs.keying.answers import Answer, Answers, same
from jobs.keying.journal import Journal, line_of
from jobs.keying.opening import Asked, open_table
from jobs.keying.order import ordered, useful
from jobs.keying.session import Refused, Session, check_text
from jobs.keying.work_queue import LEASE_S, WorkQueue


def record(id: str, row: int = 0, text: str = "grippe", by: str = "Anne", kind: str = "text", **more: object) -> dict:
    known = {"id": id, "row": row, "kind": kind, "text": text, "note": "", "by": by, "at": 1.0, "seconds": 2.0}
    return known | {"role": "key", "blind": False} | more


# --- the journal


@pytest.mark.parametrize(
    "rest", [b"0", b"00000000 {}\n", line_of(record("z"))[:-1], b"\0" * 700, line_of({"a": 1})[:12] + b"\n\n"]
)
def test_a_torn_end_is_set_aside(tmp_path: Path, rest: bytes):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(5):
        journal.append(record(str(number), text="é\u2028\n")).result()
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    again = Journal(path)
    assert [one["id"] for one in again.records] == list("01234") and again.torn == len(rest)
    again.append(record("5")).result()
    again.close()
    assert path.read_bytes() == whole + line_of(record("5"))
    [aside] = tmp_path.glob(".journal*.torn")
    assert aside.read_bytes() == rest and stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_every_cut_of_a_journal_leaves_its_whole_records(tmp_path: Path):
    content = b"".join(line_of(record(str(number))) for number in range(3))
    ends = [len(line_of(record(str(0)))) * k for k in range(4)]
    for cut in range(len(content) + 1):
        (tmp_path / "j").write_bytes(content[:cut])
        assert len(journals.read(tmp_path / "j")[0]) == sum(end <= cut for end in ends) - 1


def test_damage_in_the_middle_is_refused(tmp_path: Path):
    path = tmp_path / "j"
    lines = [line_of(record(str(number))) for number in range(4)]
    path.write_bytes(lines[0] + lines[1].replace(b"grippe", b"grappe") + lines[2] + lines[3])
    with pytest.raises(ValueError, match="line 2 is damaged") as failure:
        Journal(path)
    assert "grappe" not in str(failure.value)


def test_after_a_failing_disk_nothing_is_acknowledged(tmp_path: Path, monkeypatch):
    journal = Journal(tmp_path / "j")
    journal.append(record("0")).result()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append(record("1")).result()
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):  # what the kernel has dropped it does not report again
        journal.append(record("2")).result()
    journal.close()


def test_what_the_disk_refused_is_in_no_table(tmp_path: Path, monkeypatch):
    """It was never acknowledged: a table that has it would say another thing than the journal that it is made of."""
    made = open_table(table(tmp_path, 6), Asked())
    made.folder.mkdir()
    journal = Journal(made.folder / "journal.jsonl")
    session = Session([made], [journal])
    tab = session.begin("Anne")
    session.answer(tab, id="0" * 16, row=0, kind="text", text="grippe").result()

    def full(handle: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        session.answer(tab, id="1" * 16, row=1, kind="text", text="choc").result()
    with pytest.raises(OSError, match="No space left"):  # nor is one taken back
        session.undo(tab, id="2" * 16)
    monkeypatch.undo()
    session.forget_unsaved()
    assert session.done == 1 and session.answers[0].final(0).text == "grippe" and session.answers[0].final(1) is None
    journal.close()
    assert [entry["text"] for entry in Journal(made.folder / "journal.jsonl").records] == ["grippe"]


def test_pages_that_were_closed_without_a_word_make_room(tmp_path: Path, monkeypatch):
    made, now = open_table(table(tmp_path, 3), Asked()), [0.0]
    made.folder.mkdir()
    session = Session([made], [Journal(made.folder / "journal.jsonl")])
    session.queue.clock = lambda: now[0]
    monkeypatch.setattr("jobs.keying.session.MAX_TABS", 3)
    tabs = [session.begin("Anne") for _ in range(3)]
    with pytest.raises(Refused, match="crowded"):
        session.begin("Marie")
    now[0] = LEASE_S + 1
    session.queue.hear(tabs[1])
    assert session.begin("Marie") and session.begin("Jean") and set(session.tabs) >= {tabs[1]}
    assert tabs[0] not in session.tabs


# --- what answers say together


def test_answers_of_two_and_a_third():
    answers = Answers([record("a")], double={0})
    assert answers.state(0) == "second" and not answers.wants(0, " ANNE ") and answers.wants(0, "Bertrand")
    answers.apply(record("b", by="Bertrand", text="choc"))
    assert answers.state(0) == "third" and answers.role(0) == "settle" and answers.final(0) is None
    answers.apply(record("c", by="Chloé", text="choc", role="settle"))
    assert answers.final(0).id == "c" and answers.state(0) == "done" and not answers.wants(0, "Denis")
    assert not answers.may_withdraw(answers.by_id["a"]) and answers.may_withdraw(answers.by_id["c"])
    answers.apply({"id": "w", "withdraws": "c", "by": "Chloé", "at": 2.0})
    assert answers.state(0) == "third" and answers.wants(0, "Chloé")


def test_the_same_however_it_is_spaced_and_composed():
    one, other = (Answer(**record("a", text=text)) for text in (" e\u0301t  at", "ét at"))
    assert same(one, other) and not same(one, Answer(**record("b", text="Ét at")))


@pytest.mark.parametrize("text", ["a\x00", "\u200b", "a\ufeff", "\ud800", "\ue000", "a\r\n", "\t", "x" * 10_001])
def test_what_cannot_be_stored(text: str):
    with pytest.raises(Refused):
        check_text(text)
    check_text("œuf, n° 3 «\u00a0½\u00a0» ≥ 3\nμg")


# --- who gets what


def test_rows_are_in_one_pair_of_hands_and_come_back():
    now, answered = [0.0], set()
    queue = WorkQueue(6, lambda rank: rank not in answered, lambda: now[0])
    assert queue.take("a", 3, lambda rank: True) == [0, 1, 2] and queue.take("b", 2, lambda rank: True) == [3, 4]
    answered.add(1)
    queue.release(1, again=True)
    assert queue.take("a", 1, lambda rank: rank != 1) == [5]
    assert queue.take("b", 5, lambda rank: True) == [1]
    now[0] = LEASE_S - 1
    queue.hear("b")
    now[0] = LEASE_S + 1
    assert queue.take("c", 9, lambda rank: True) == [0, 2, 5]  # a was not heard of
    queue.leave("b")
    assert queue.take("c", 9, lambda rank: True) == [1, 3, 4] and queue.in_hands == 6


# --- which comes first


def test_orders(tmp_path: Path):
    made = open_table(table(tmp_path, 30), Asked())
    assert ordered(made, "certificate").tolist() == list(range(30))
    assert ordered(made, "unsure").tolist() == list(range(29, -1, -1))
    assert sorted(ordered(made, "useful").tolist()) == list(range(30))
    with pytest.raises(ValueError, match="no such order"):
        ordered(made, "best")


def test_useful_rows_are_unsure_common_and_unlike_those_before():
    many = ["cancer du sein", "cancer du poumon", "cancer du rein"] * 20
    readings = ["zzqq wwxx", *many, "cancer du sein"]
    unsure = np.array([0.9] + [0.5] * 60 + [0.01])
    order = useful(readings, unsure).tolist()
    assert sorted(order) == list(range(62))
    first = [readings[i] for i in order[:3]]
    assert set(first) == set(many), "three kinds of the common ones, no near-twin, before the rare one"
    assert order.index(61) > 40, "what is sure teaches little"
    assert useful(["", "a", ""], np.ones(3)).tolist()[0] == 1


def test_a_sample_comes_first_and_double_rows_are_the_same_at_every_start(tmp_path: Path):
    decisions = ["accept" if n % 2 else "review" for n in range(40)]
    made = table(tmp_path, 40, "texts.csv", decision=decisions, alternatives=["[]"] * 40, reason=[""] * 40)
    opened = [open_table(made, Asked(sample=5, double=0.3, seed=2)) for _ in range(2)]
    assert opened[0].double == opened[1].double and opened[0].todo.tolist() == opened[1].todo.tolist()
    assert set(ordered(opened[0], "unsure")[:5]) == set(range(5)) and opened[0].blind[:5].all()
    assert 2 <= len(opened[0].double) <= 16
    assert open_table(made, Asked(sample=5, double=0.3, seed=3)).double != opened[0].double


# --- how far people agree


def test_agreement_by_hand():
    pairs = [Pair("c1", "Ia", "grippe", "grippe"), Pair("c1", "II", "choc", "chox"), Pair("c2", "Ia", "", ""),
             Pair("c3", "Ia", "abcd", "ab")]  # fmt: skip
    found = agreement(pairs, 2)
    assert found["rows"] == 4 and found["exact"] == 0.5 and found["uncertain"] == 2
    assert found["cer"] == pytest.approx(3 / (6 + 4 + 0 + 3))
    assert found["by"]["Ia"]["rows"] == 3 and found["by"]["II"]["exact"] == 0.0
    assert found["by"]["II"]["exact_interval"] is None  # one certificate says nothing of others
    assert agreement([], 0)["exact"] is None


def test_modes_hang_on_no_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        Journal(tmp_path / "j").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600


def test_a_journal_that_others_could_read_is_closed_to_them_and_no_link_is_followed(tmp_path: Path):
    """A folder that was copied has the modes of who copied it; a link would carry answers elsewhere."""
    made = table(tmp_path, 3)
    folder = tmp_path / "review.csv.keying"
    folder.mkdir(mode=0o755)
    folder.chmod(0o777)
    (folder / "journal.jsonl").touch()
    (folder / "journal.jsonl").chmod(0o666)
    assert main(["review", str(made), "--write"]) == 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "journal.jsonl").stat().st_mode) == 0o600
    elsewhere = tmp_path / "elsewhere"
    (folder / "journal.jsonl").rename(elsewhere)
    (folder / "journal.jsonl").symlink_to(elsewhere)
    assert main(["review", str(made), "--write"]) == 1
    folder.rename(tmp_path / "moved")
    for target in ("moved", "nowhere"):
        folder.unlink(missing_ok=True)
        folder.symlink_to(tmp_path / target)
        assert main(["review", str(made), "--write"]) == 1
