"""A training that is waited for: what its run folder says is shown, whatever it lacks yet."""

import json
from pathlib import Path

import pytest

from jobs.submit import watch

BEFORE = {"state": "stopped", "step": 7, "steps": 20, "loss": 1.5, "lines_per_s": 90.0}
STATES = [  # of a run that is resumed, one after the other
    BEFORE,
    {"state": "starting"},
    {"state": "starting", "steps": 20},
    {"state": "starting", "step": 7, "steps": 20},
    {"state": "starting", "step": 7, "steps": 20, "lines_per_s": 90.0},
    {"state": "running", "step": 9, "steps": 20, "loss": 1.25, "lines_per_s": 80.0},
    {"state": "running", "step": 9, "steps": 20, "loss": 1.25, "lines_per_s": 80.0, "dev_cer": 0.125},
]
SHOWN = [(7, ""), (7, "90 lines/s"), (9, "loss 1.250, 80 lines/s"), (9, "loss 1.250, 80 lines/s, CER on dev 12.5 %")]


def test_a_run_that_is_resumed_has_no_loss_before_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown = []

    def wait(started, poll, errors_only) -> int:
        for state in STATES:
            (tmp_path / "status.json").write_text(json.dumps(state), encoding="utf-8")
            poll()
        return 0

    (tmp_path / "status.json").write_text(json.dumps(BEFORE), encoding="utf-8")
    monkeypatch.setattr("jobs.launch.submitit_launcher.wait", wait)
    monkeypatch.setattr("jobs.submit.Progress.show", lambda self, step, steps, note: shown.append((step, note)))
    assert watch([], tmp_path) == 0 and shown == SHOWN
