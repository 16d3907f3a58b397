"""The learning curves, and what is read of a metrics.jsonl that was gone on with after a resume."""

import json
from pathlib import Path

import cv2
import matplotlib.figure
import pytest

from jobs.training import learning_curves
from jobs.training.learning_curves import points, read_metrics


def train(step: int, loss: float = 1.0) -> dict:
    return {"step": step, "loss": loss, "lr": 0.001, "lines_per_s": 80.0}


def dev(step: int, cer: float) -> dict:
    return {"step": step, "dev_cer": cer, "dev_wer": 1.0}


def logged(run: Path, *lines: dict | str) -> Path:
    with open(run / "metrics.jsonl", "a") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    return run


def test_a_step_is_one_row(tmp_path: Path):
    logged(tmp_path, train(50), train(100), dev(100, 0.5), train(150))
    assert read_metrics(tmp_path) == [train(50), train(100) | dev(100, 0.5), train(150)]


def test_lost_steps_are_left_out(tmp_path: Path):
    """Stopped after step 200, resumed at 100, with the same lines again."""
    logged(tmp_path, train(50), train(100), dev(100, 0.5), train(150), train(200), dev(200, 0.1))
    again = logged(tmp_path, train(150, loss=3.0))
    assert read_metrics(again) == [train(50), train(100) | dev(100, 0.5), train(150, loss=3.0)]
    logged(tmp_path, train(200, loss=4.0))
    assert "dev_cer" not in read_metrics(tmp_path)[-1]
    logged(tmp_path, dev(200, 0.3))
    assert read_metrics(tmp_path)[-1] == train(200, loss=4.0) | dev(200, 0.3)
    logged(tmp_path, train(200, loss=5.0))  # resumed at 150: dev of the lost step is lost too
    assert read_metrics(tmp_path)[-1] == train(200, loss=5.0)


def test_dev_read_first_after_a_resume(tmp_path: Path):
    logged(tmp_path, train(100), train(150), dev(100, 0.5), train(150, loss=3.0))
    assert read_metrics(tmp_path) == [train(100) | dev(100, 0.5), train(150, loss=3.0)]


def test_lines_that_are_not_whole(tmp_path: Path):
    logged(
        tmp_path, train(50), '{"step": 60, "lo{"step": 70}', "[1]", "7", '{"loss": 1}', '{"step": "many"}', train(80)
    )
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'\xff\n{"step": 90')
    assert read_metrics(tmp_path) == [train(50), train(80)]


def test_points_where_there_are_some():
    assert points([{"step": 1, "lr": 0.5}, {"step": 2}, {"step": 3, "lr": None}], "lr") == [(1, 0.5)]


def test_the_picture(tmp_path: Path, monkeypatch):
    """A name that matplotlib would take for a formula, a loss that is zero or no number, dev not yet read."""
    kept = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *a, **k: kept.append(self) or save(self, *a, **k)
    )
    run = tmp_path / "a$_{1"
    run.mkdir()
    logged(run, train(50), train(100, loss=0.0), train(150, loss=float("nan")), train(200, loss=0.5))
    assert learning_curves.draw(run) == run / "curves.png"
    picture = cv2.imread(str(run / "curves.png"))
    assert min(picture.shape[:2]) > 400
    [figure] = kept
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["loss of training, nats a character", "CER on dev, %", "learning rate", "lines a second"]
    drawn = [len(axis.lines) for axis in figure.axes]
    assert drawn == [1, 0, 1, 1]
    assert list(figure.axes[3].lines[0].get_xdata()) == [50, 100, 150, 200]
    logged(run, dev(200, 0.25))
    learning_curves.draw(run)
    assert list(kept[1].axes[1].lines[0].get_ydata()) == [25.0]
    assert sorted(path.name for path in run.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_nothing_is_logged_yet(tmp_path: Path):
    assert learning_curves.draw(tmp_path) is None
    logged(tmp_path, "{")
    assert learning_curves.draw(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_a_picture_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch):
    logged(tmp_path, train(50))
    (tmp_path / "curves.png").write_bytes(b"before")
    monkeypatch.setattr("shards.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        learning_curves.draw(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.glob("*.png*")] == [("curves.png", b"before")]
    assert not list(tmp_path.glob(".*"))
