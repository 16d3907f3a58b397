"""The sums of parts and the figures made of them, against what plain Python counts of the same lines."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from htr.metrics.error_rates import Errors, compare
from jobs.evaluation.accumulators import Accumulator, classes, grouped
from jobs.evaluation.comparison import paired
from jobs.evaluation.metrics import MIN_CONFUSION_COUNT, confusions, some_share
from jobs.evaluation.result_files import counted, merge, part, write_part

WORDS = ("choc", "septique", "grippe", "IDM", "Décès", "œdème", "AVC", "l'IRC")


def lines_of(number: int, seed: int = 0, writers: int = 12) -> list[dict]:
    rng, rows = random.Random(seed), []
    for row in range(number):
        certificate, reference = row // 3, " ".join(rng.choices(WORDS, k=rng.choice((0, 1, 2, 3, 5))))
        reference = "3 j" if rng.random() < 0.05 else reference
        read = (
            reference if rng.random() < 0.5 else "".join(c for c in reference if rng.random() > 0.2) + rng.choice(" ae")
        )
        writer = f"w{certificate % writers}" if writers and certificate % 5 else ""
        known = {
            "year": str(2015 + certificate % 4),
            "field": ("Ia", "Ib", "II")[row % 3],
            "region": f"r{certificate % 2}",
        }
        rows.append({"key": f"c{certificate}_{row % 3}", "certificate": f"c{certificate}", "writer": writer, **known,
                     "name": f"n{row}", "width": 40 * len(reference) + 9, "height": 60, "shard": f"s{row // 50}",
                     "reference": reference, "hypothesis": read})  # fmt: skip
    return rows


def write(folder: Path, rows: list[dict], size: int = 50) -> list[str]:
    (folder / "parts").mkdir(parents=True)
    shards = [f"s{start // size}" for start in range(0, len(rows), size)]
    for number, shard in enumerate(shards):
        write_part(counted(pa.Table.from_pylist(rows[number * size : (number + 1) * size])), part(folder, shard))
    return shards


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return lines_of(600)


@pytest.fixture(scope="module")
def metrics(rows, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("evaluation")
    merge(folder, write(folder, rows), {"split": "val"}, {"choc", "septique"})
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def total(rows: list[dict]) -> Errors:
    return sum((compare(row["reference"], row["hypothesis"]) for row in rows), Errors())


def by(rows: list[dict], *names: str) -> dict[tuple, list[dict]]:
    found = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


def exact(rows: list[dict]) -> bool:
    return all(row["reference"] == row["hypothesis"] for row in rows)


def test_the_headline(rows, metrics):
    errors = total(rows)
    assert (metrics["lines"], metrics["cer"], metrics["wer"]) == (600, errors.cer, errors.wer)
    assert metrics["split"] == "val" and metrics["line_accuracy"] == errors.exact / 600
    for name, keys in (("field", ("certificate", "field")), ("certificate", ("certificate",))):
        units = by(rows, *keys).values()
        assert metrics[f"{name}s"] == len(units) and metrics[f"{name}s_exact"] == sum(map(exact, units))
        low, high = metrics["interval"][f"{name}_accuracy"]
        assert low <= metrics[f"{name}_accuracy"] <= high
    about = metrics["interval"]
    writers = {row["writer"] or row["certificate"] for row in rows}
    assert (
        about["groups"] == len(writers)
        and about["unit"] == "writer or certificate"
        and about["method"] == "bootstrap-t"
    )
    nobodys = sum(not row["writer"] for row in rows)
    assert f"{nobodys} lines do not say who wrote them" in about["warning"]
    assert all(about[name][0] <= metrics[name] <= about[name][1] for name in ("cer", "wer", "wer_unicode"))
    assert metrics["normalised"]["as_is"]["edits"] == metrics["edits"] > metrics["normalised"]["lenient"]["edits"]
    assert metrics["unseen"]["words"] == sum(
        word not in ("choc", "septique") for row in rows for word in row["reference"].split()
    )


def test_means_over_writers_and_certificates(rows, metrics):
    for name in ("writer", "certificate"):
        each = [total(own).cer for (who,), own in by(rows, name).items() if who and total(own).characters]
        assert metrics["macro"][name]["cer"] == pytest.approx(np.mean(each))
        assert metrics["macro"][name]["quantiles"]["0.9"] == pytest.approx(np.quantile(each, 0.9))
        low, high = metrics["macro"][name]["interval"]["cer"]
        assert low < metrics["macro"][name]["cer"] < high


def test_slices(rows, metrics):
    assert set(metrics["by"]) == {"year", "field", "region", "length", "width", "writer"}  # not the names
    for column in ("year", "field", "region"):
        for (value,), own in by(rows, column).items():
            row, errors = metrics["by"][column][value], total(own)
            assert (row["lines"], row["edits"], row["cer"], row["wer"]) == (
                len(own),
                errors.edits,
                errors.cer,
                errors.wer,
            )
            assert row["clusters"] == len({line["writer"] or line["certificate"] for line in own}) and not row["small"]
            assert row["interval"]["cer"][0] <= row["cer"] <= row["interval"]["cer"][1]
    lengths = metrics["by"]["length"]
    assert sum(row["lines"] for row in lengths.values()) == 600
    assert lengths["0"]["lines"] == sum(not row["reference"] for row in rows) and lengths["0"]["cer"] is None
    assert metrics["by"]["width"]["-128"]["lines"] == sum(row["width"] * 48 // 60 <= 128 for row in rows)
    assert len(metrics["by"]["writer"]) == 13 and not [name for name in metrics["by"]["writer"] if name in {"w1", "w2"}]
    assert metrics["drift"]["first"] == "2015" and list(metrics["drift"]["years"]) == ["2016", "2017", "2018"]


def test_spellings_of_one_writer_are_one_writer(rows, metrics, tmp_path):
    """As everywhere: in clusters, in the mean over writers and in the slices by writer."""
    other = str.upper, "  {} ".format
    spelt = [row | {"writer": other[number % 2](row["writer"])} for number, row in enumerate(rows)]
    assert len({row["writer"] for row in spelt}) == 2 * len({row["writer"] for row in rows})
    merge(tmp_path, write(tmp_path, spelt), {"split": "val"}, {"choc", "septique"})
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_values_blanks_classes_and_confusions(rows, metrics):
    durations = [row for row in rows if row["reference"] == "3 j"]
    value = metrics["value"]["duration"]
    assert value["lines"] == len(durations) > 10 and value["exact"] == sum(map(exact, ([row] for row in durations)))
    assert value["interval"][0] <= value["accuracy"] <= value["interval"][1] and value["right"] >= value["exact"]
    blank = [row for row in rows if not row["reference"]]
    assert metrics["blank"]["lines"] == len(blank) and metrics["blank"]["written"] == 600 - len(blank)
    assert metrics["blank"]["false_text"] == sum(bool(row["hypothesis"].strip()) for row in blank)
    classes_ = metrics["character_classes"]
    assert classes_["space"]["characters"] == sum(row["reference"].count(" ") for row in rows)
    assert classes_["capitals"]["characters"] == sum(c.isupper() for row in rows for c in row["reference"])
    assert all(row["missed"] <= row["characters"] for row in classes_.values())
    counts = [row["count"] for row in metrics["confusions"]]
    assert counts == sorted(counts, reverse=True) and min(counts) >= 5
    assert all(len(row["reference"]) <= 1 and len(row["hypothesis"]) <= 1 for row in metrics["confusions"])


def test_parts_of_another_size_sum_to_the_same(rows, metrics, tmp_path):
    merge(tmp_path, write(tmp_path, rows, 170), {"split": "val"}, {"choc", "septique"})
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == metrics


def test_what_is_not_known(tmp_path):
    rows = [
        {key: row[key] for key in ("key", "certificate", "width", "height", "reference", "hypothesis")}
        for row in lines_of(30)
    ]
    merge(tmp_path, write(tmp_path, rows), {}, None)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert (
        metrics["interval"]["unit"] == "certificate" and "no line says who wrote it" in metrics["interval"]["warning"]
    )
    assert "10 certificates: too few" in metrics["interval"]["warning"]
    assert metrics["macro"]["writer"] is metrics["drift"] is metrics["unseen"] is None
    assert metrics["fields"] == 0 and metrics["field_accuracy"] is metrics["interval"]["field_accuracy"] is None
    assert set(metrics["by"]) == {"length", "width"}


def test_a_line_that_is_there_twice(tmp_path):
    shards = write(tmp_path, [*lines_of(60), *lines_of(3)])
    with pytest.raises(ValueError, match="3 lines were read twice"):
        merge(tmp_path, shards, {}, None)


def test_two_readers_that_differ_on_one_field(rows, tmp_path):
    worse = [row | ({"hypothesis": row["hypothesis"] + "xx"} if row["field"] == "II" else {}) for row in rows]
    for name, own in (("one", rows), ("two", worse)):
        merge(tmp_path / name, write(tmp_path / name, own), {}, None)
    found = paired(tmp_path / "one", tmp_path / "two")
    assert found["difference"] == pytest.approx((total(rows).edits - total(worse).edits) / total(rows).characters)
    assert found["low"] <= found["difference"] <= found["high"] < 0 and found["p"] < 0.001
    fields = found["by"]["field"]
    assert fields["Ia"]["difference"] == fields["Ib"]["difference"] == 0 and fields["Ia"]["q"] == 1
    assert fields["II"]["q"] < 0.001 and fields["II"]["clusters"] == found["groups"]


def test_columns_of_the_source_named_like_counts_give_way():
    row = lines_of(1)[0] | {"edits": "many", "word_right": "yes"}
    table = counted(pa.Table.from_pylist([row]))
    assert table.column_names.count("edits") == 1 and table["edits"].type == pa.int32()


def test_groups_and_classes():
    (first, second), which = grouped(np.array([2, 0, 2, 2]), np.array([1, 5, 1, 0]))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 5), (2, 0), (2, 1)] and which.tolist() == [
        2,
        0,
        2,
        1,
    ]
    assert classes((0, 5, 10)) == ["0", "1-5", "6-10", "11-"] and classes((128, 256)) == ["-128", "129-256", "257-"]
    assert Accumulator().names["cluster"].of(pa.array([], pa.string())).tolist() == []


def test_a_cluster_without_any_is_no_witness_of_a_share():
    right, of = np.array([3, 1, 4, 0, 2] * 4), np.array([4, 3, 4, 1, 5] * 4)
    none = np.zeros(30, int)
    assert some_share(np.append(right, none), np.append(of, none)) == some_share(right, of) is not None


def test_a_confusion_seen_five_times_is_one():
    found = confusions(Counter({("a", "b"): MIN_CONFUSION_COUNT, ("c", "d"): MIN_CONFUSION_COUNT - 1}))
    assert found == [{"reference": "a", "hypothesis": "b", "count": MIN_CONFUSION_COUNT}] and MIN_CONFUSION_COUNT == 5
