"""Signals become decisions of all ranks; what a job says when it can't go back into the queue."""

import os
import signal

import pytest

from jobs.distributed.signals import Decision, SignalHandler, requeue


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("stop", "limit", "expected"),
    [(0, 0, Decision()), (0, 3, Decision(True, True)), (1, 0, Decision(True)), (1, 2, Decision(True, False))],
)
def test_any_signal_stops_and_sigterm_never_requeues(stop: int, limit: int, expected: Decision):
    assert Decision.of({"stop": stop, "limit": limit}) == expected


@pytest.mark.parametrize(("number", "name"), [("SIGUSR1", "limit"), ("SIGUSR2", "limit"), ("SIGTERM", "stop")])
def test_a_signal_is_kept_until_it_is_asked_for(number: str, name: str):
    with SignalHandler() as signals:
        assert not any(signals.received.values())
        os.kill(os.getpid(), getattr(signal, number))
        assert signals.received == {"stop": 0, "limit": 0} | {name: 1}
    # the one that ends by agreement is not ended by srun's SIGTERM in addition
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_without_a_signal_sigterm_is_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with SignalHandler():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_time_limit_before_the_steps_is_not_lost():
    signals = SignalHandler()
    os.kill(os.getpid(), signal.SIGUSR1)
    with signals:
        assert signals.received["limit"]


def test_what_cannot_be_queued_again_says_why(monkeypatch, tmp_path):
    assert "no job of Slurm" in requeue({})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--chain" in requeue({"SLURM_JOB_ID": "17"})
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$2" = 17 ] || { echo "Requested operation is disabled" >&2; exit 1; }\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert requeue({"SLURM_JOB_ID": "17"}) == ""
    assert requeue({"SLURM_JOB_ID": "18"}) == "Requested operation is disabled"


def test_a_scontrol_that_does_not_answer_or_start_is_a_reason(monkeypatch, tmp_path):
    """As where Slurm's controller is down: it was a traceback, after the checkpoint was written."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\nexec sleep 600\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr("jobs.distributed.signals.SCONTROL_TIMEOUT_S", 0.2)
    assert requeue({"SLURM_JOB_ID": "17"}) == "scontrol did not answer within 0.2 s"
    scontrol.write_text("#!/nowhere\n")
    assert requeue({"SLURM_JOB_ID": "17"}) == "scontrol could not be started: No such file or directory"
