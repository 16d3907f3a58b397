"""A promise in production: batches as transcribe writes them, samples as people key them."""

import csv
import json
from pathlib import Path

import evaluated
import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli.command_line import main
from jobs.monitor import ALARM
from shards.sample import NOT_YET


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = evaluated.run(tmp_path_factory.mktemp("run") / "ctc", {"dev": 80, "calibration": 200, "test": 40}, easy=1.0)
    parts = ["--fit", "dev", "--choose", "calibration", "--judge", "test", "--by", "unit"]
    for unit in ("field", "certificate"):
        asked = ["--unit", unit, "--alpha", "0.2", "--name", unit]
        assert main(["calibrate", "--run", str(run), *parts, *asked]) == 0
    asked = ["--unit", "line", "--loss", "cer", "--alpha", "0.05", "--name", "cer"]
    assert main(["calibrate", "--run", str(run), *parts, *asked]) == 0
    return run


def batch(folder: Path, seed: int, wrong: float, easy: float = 1.0, sample: int = 40, endings: str = "csv"):
    """-> the readings of 120 certificates, a row a field, and the sample, keyed; so many of the accepted are wrong."""
    rng = np.random.default_rng(seed)
    table = evaluated.lines(100 + seed, 120, easy=easy, name=f"b{seed}-")
    rows, seen = [], set()
    for row in table.to_pylist():
        if (row["certificate"], row["field"]) in seen:
            continue
        seen.add((row["certificate"], row["field"]))
        decision = "accept" if row["signal_likelihood"] > 0.5 else "review"
        known = {name: row[name] for name in ("certificate", "field")}
        signals = {name: value for name, value in row.items() if name.startswith("signal_")}
        rows.append({**known, "text": row["reference"], "decision": decision, **signals})
    accepted = [row for row in rows if row["decision"] == "accept"]
    chosen = [accepted[i] for i in sorted(rng.permutation(len(accepted))[:sample].tolist())]
    # who fills in a text need not empty what said that there was none
    reject = NOT_YET if endings == "parquet" else ""
    keyed = [{"certificate": row["certificate"], "field": row["field"], "reject": reject,
              "text": "autre" if rng.random() < wrong else row["text"]} for row in chosen]  # fmt: skip
    paths = folder / f"batch{seed}.{endings}", folder / f"keyed{seed}.csv"
    for path, content in zip(paths, (rows, keyed), strict=True):
        if path.suffix == ".parquet":
            pq.write_table(evaluated.pa.Table.from_pylist(content), path)
            continue
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    return paths, len(accepted), sum(row["text"] == "autre" for row in keyed)


def monitor(run: Path, log: Path, *options: object, unit: str = "field") -> int:
    return main(list(map(str, ["monitor", *options, "--promise", run / "reliability" / unit, "--log", log])))


def test_a_batch_is_bounded_and_written_down(run: Path, tmp_path: Path, capsys):
    log = tmp_path / "monitor.jsonl"
    for seed, endings in ((0, "csv"), (1, "parquet")):
        paths, accepted, wrong = batch(tmp_path, seed, 0.05, endings=endings)
        assert monitor(run, log, *paths, "--seconds", 36) == 0
        said = capsys.readouterr()
        entry = json.loads(log.read_text(encoding="utf-8").splitlines()[seed])
        assert (entry["accepted"], entry["sampled"], entry["wrong"]) == (accepted, 40, wrong)
        assert wrong <= entry["bound"] < accepted and entry["alarms"] == [] and not entry["drift"]["p"] <= 0.05
        assert entry["hours"] == pytest.approx((accepted - 40) / 100)
        assert f"{accepted} fields accepted, 40 of them keyed: {wrong} differ from what was keyed" in said.out
        assert evaluated.CANARY not in said.out + said.err + log.read_text(
            encoding="utf-8"
        ) and f"b{seed}-" not in log.read_text(encoding="utf-8")
    assert entry["watch"]["batches"] == 2 and entry["watch"]["sampled"] == 80
    # the same batch counts once
    assert monitor(run, log, *paths) == 1 and "counts once" in capsys.readouterr().err
    assert len(log.read_text(encoding="utf-8").splitlines()) == 2


def test_more_errors_than_promised_are_an_alarm(run: Path, tmp_path: Path, capsys):
    log, codes = tmp_path / "monitor.jsonl", []
    for seed in range(2, 5):
        codes.append(monitor(run, log, *batch(tmp_path, seed, 0.5)[0]))
    assert codes[-1] == ALARM and "ALARM (bet" in capsys.readouterr().err
    assert "bet" in json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["alarms"]


def test_a_promise_of_cer_is_watched_by_its_edits(run: Path, tmp_path: Path, capsys):
    log = tmp_path / "monitor.jsonl"
    assert monitor(run, log, *batch(tmp_path, 6, 0.02)[0], unit="cer") == 0
    first = json.loads(log.read_text(encoding="utf-8"))
    said = capsys.readouterr().out
    assert f"with 95 % the CER of this batch is at most {100 * first['cer_bound']:.2f} %" in said
    assert first["cer_bound"] > first["watch"]["wrong"] / first["watch"]["sampled"]
    assert "characters: evidence" in said and first["watch"]["sampled"] > 10 * first["sampled"]
    assert (first["watch"]["wrong"] > 0) == (first["wrong"] > 0)
    codes = [monitor(run, log, *batch(tmp_path, seed, 0.5)[0], unit="cer") for seed in range(7, 10)]
    assert codes[-1] == ALARM and "bet" in json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["alarms"]


def test_readings_unlike_those_of_the_promise_are_an_alarm(run: Path, tmp_path: Path, capsys):
    log = tmp_path / "monitor.jsonl"
    assert monitor(run, log, *batch(tmp_path, 5, 0.0, easy=-1.5)[0]) == ALARM
    said = capsys.readouterr()
    assert "ALARM (drift)" in said.err and "likelihood -" in said.out
    # where its evaluation has gone, the rest goes on
    gone = run / "evaluation" / "calibration"
    gone.rename(run / "evaluation" / "away")
    try:
        assert monitor(run, tmp_path / "other.jsonl", *batch(tmp_path, 5, 0.0, easy=-1.5)[0]) == 0
        assert "no drift check" in capsys.readouterr().err
    finally:
        (run / "evaluation" / "away").rename(gone)


def test_a_certificate_is_wrong_when_one_of_its_fields_is(run: Path, tmp_path: Path):
    def write(name: str, rows: list[tuple]) -> Path:
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([("certificate", "field", "text", "decision"), *rows])
        return tmp_path / name

    rows = [(f"c{i}", field, "grippe", "accept") for i in range(30) for field in ("Ia", "II")]
    keyed = [(c, f, "chute" if (c, f) == ("c3", "II") else "  grippe", "") for c, f, *_ in rows[:20]]
    log = tmp_path / "log.jsonl"
    assert monitor(run, log, write("batch.csv", rows), write("keyed.csv", keyed), unit="certificate") == 0
    entry = json.loads(log.read_text(encoding="utf-8"))
    assert (entry["accepted"], entry["sampled"], entry["wrong"], entry["drift"]) == (30, 10, 1, None)


@pytest.mark.parametrize("unit", ["field", "certificate", "cer"])
@pytest.mark.parametrize("place", [("line",), ("page",), ("image",), ("line", "image")])
def test_each_row_of_a_unit_is_compared(run: Path, tmp_path: Path, write_table, unit: str, place: tuple[str, ...]):
    """Lines of one field, or two pages of a certificate: a misreading of the first is as wrong as one of the last."""
    for wrong in (0, 1):
        rows = [
            {"certificate": f"c{i}", "field": "II", "text": f"grippe {k}", "decision": "accept"}
            | {name: f"{k}/a.png" if name == "image" else f"{k}" for name in place}
            for i in range(30)
            for k in range(2)
        ]
        keyed = [row | {"decision": ""} | {name: f"deep/{row[name]}" for name in place if name == "image"}
                 for row in rows[:20]]  # fmt: skip
        keyed[wrong] = keyed[wrong] | {"text": "chute"}
        log = tmp_path / f"log{wrong}.jsonl"
        paths = [write_table(tmp_path / f"{name}{wrong}.csv", t) for name, t in (("batch", rows), ("keyed", keyed))]
        assert monitor(run, log, *paths, unit=unit) in (0, ALARM)
        entry = json.loads(log.read_text(encoding="utf-8"))
        assert entry["wrong"] == 1 and entry["accepted"] == (60 if unit == "cer" else 30)
        assert entry["sampled"] == (20 if unit == "cer" else 10)


def test_rows_that_cannot_be_told_apart_or_are_missing_are_refused(run: Path, tmp_path: Path, write_table, capsys):
    rows = [{"certificate": f"c{i // 2}", "field": "II", "line": str(i % 2), "text": "grippe", "decision": "accept"}
            for i in range(20)]  # fmt: skip
    log, whole = tmp_path / "log.jsonl", write_table(tmp_path / "batch.csv", rows)
    twins = write_table(tmp_path / "twins.csv", [row | {"line": "0"} for row in rows])
    none = write_table(tmp_path / "none.csv", [row | {"decision": "review"} for row in rows])
    for batch_of, keyed, said in (
        (twins, rows[:4], "two rows have one certificate and field and line"),
        (whole, [*rows[:2], rows[0]], "two rows have one"),
        (whole, rows[:3], "of 1 of its fields rows are missing"),
        (none, rows[:2], "nothing was accepted"),
    ):
        assert monitor(run, log, batch_of, write_table(tmp_path / "keyed.csv", keyed)) == 1
        assert said in capsys.readouterr().err and not log.exists()


def test_a_sample_that_is_not_done_or_not_this_batchs_is_refused(run: Path, tmp_path: Path, capsys):
    (readings, keyed), *_ = batch(tmp_path, 6, 0.0)
    (_, foreign), *_ = batch(tmp_path, 7, 0.0)
    log = tmp_path / "log.jsonl"

    def fails(match: str, *options: object) -> None:
        assert monitor(run, log, *options) == 1
        said = capsys.readouterr().err
        assert match in said and "b6-" not in said and "b7-" not in said and evaluated.CANARY not in said

    fails("40 of its fields are not among those that the batch accepted", readings, foreign)
    text = keyed.read_text(encoding="utf-8").replace(",,", ",to be keyed,", 3)
    keyed.write_text(text)
    fails("3 rows are still to be keyed", readings, keyed)
    fails("no column decision", keyed, keyed)
    headless = tmp_path / "headless.csv"
    headless.write_text(f"a.png,{evaluated.CANARY}\nb.png,{evaluated.CANARY}\n", encoding="utf-8")
    fails("its first line, not shown, names none of ours", headless, keyed)
    keyed.write_text(text.splitlines()[0] + "\n")
    fails("without rows", readings, keyed)
    fails("give two tables")
    fails("no such table", readings, tmp_path / "none.csv")
    assert not log.exists()


def test_how_many_to_key(run: Path, tmp_path: Path, capsys):
    assert monitor(run, tmp_path / "log", "--plan", "--accepted", 5000, "--expected", 0.05) == 0
    assert "of 5000 accepted fields" in capsys.readouterr().out
    assert monitor(run, tmp_path / "log", "--plan") == 1
