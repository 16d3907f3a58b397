"""The counts are those of the rows, and the picture is drawn."""

import collections
import csv

import cv2
import numpy as np
import pytest

from jobs.cli.command_line import main
from shards.stats import draw, stats_of


def test_the_counts_are_those_of_the_source(dataset, source):
    with open(source, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    stats = stats_of(dataset)
    assert stats.groups["field"] == dict(sorted(collections.Counter(row["field"] for row in rows).items()))
    assert stats.groups["year"] == {"2020": 60}
    assert {split: sum(counts.values()) for split, counts in stats.levels.items()} == dataset.totals
    assert (stats.certificates, stats.writers) == (20, 0)
    assert sorted(stats.lengths) == sorted(len(row["text"]) for row in rows)
    assert stats.characters == dict(collections.Counter("".join(row["text"] for row in rows)))
    assert stats.rejects == {} and stats.bytes > 0


def test_the_picture(dataset, tmp_path):
    draw(stats_of(dataset), tmp_path / "stats.png", "small")
    picture = cv2.imread(str(tmp_path / "stats.png"))
    assert picture.shape[1] > 1000 and np.ptp(picture) > 200


def test_the_verb_prints_tables_and_no_transcription(dataset, tmp_path, capsys):
    assert main(["stats", str(dataset.folder), "--out", str(tmp_path / "s.png")]) == 0
    said = "".join(capsys.readouterr())
    assert "20 certificates" in said and "Ia 20" in said and (tmp_path / "s.png").exists()
    assert "grippe" not in said


def test_a_folder_without_a_data_set(tmp_path, capsys):
    assert main(["stats", str(tmp_path)]) == 1
    assert "no data set here" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "stats", "verify", "retry", "inspect"])
def test_help_needs_no_data(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    assert "usage" in capsys.readouterr().out
