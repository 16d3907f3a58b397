"""The connections by which ranks know of each other's end: they leave together, or hear who was lost."""

import socket
import threading

import pytest

from jobs.distributed.lifeline import Lifeline

SIZE = 4


@pytest.fixture
def lifelines():
    """Of four ranks, all in this process, one node each; a rank that a test does not close is closed after it."""
    pairs = {rank: socket.socketpair() for rank in range(1, SIZE)}
    hosts = [f"n{rank}" for rank in range(SIZE)]
    links = {0: {rank: root for rank, (root, _) in pairs.items()}}
    links |= {rank: {0: other} for rank, (_, other) in pairs.items()}
    made = [Lifeline(rank, hosts, links[rank], 60.0) for rank in range(SIZE)]
    yield made
    for line in made:
        line.close(failed=True)


def closing(lifeline: Lifeline) -> threading.Thread:
    thread = threading.Thread(target=lifeline.close, args=(False,), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("last", range(SIZE))
def test_no_rank_leaves_before_the_last_is_done(lifelines, last):
    """Whoever is last may still be in a sum: the connections of the others must stay until it says goodbye too."""
    early = [closing(lifeline) for lifeline in lifelines if lifeline.rank != last]
    for thread in early:
        thread.join(0.3)
        assert thread.is_alive(), "a rank was gone while another still worked"
    lifelines[last].close(failed=False)
    for thread in early:
        thread.join(200.0)
        assert not thread.is_alive()
    assert not any(lifeline.known.is_set() for lifeline in lifelines)


@pytest.mark.parametrize("lost", range(SIZE))
def test_who_waits_for_the_goodbyes_hears_who_was_lost(lifelines, lost):
    early = [closing(lifeline) for lifeline in lifelines if lifeline.rank != lost]
    lifelines[lost].close(failed=True)
    for thread in early:
        thread.join(200.0)
        assert not thread.is_alive()
    said = {lifeline.verdict for lifeline in lifelines if lifeline.rank != lost}
    assert said == {f"rank {lost} on n{lost} ended; if that comes again, --exclude=n{lost}"}


def test_a_rank_that_never_says_goodbye_is_not_waited_for_for_ever(lifelines, monkeypatch):
    monkeypatch.setattr("jobs.distributed.lifeline.LEAVE_WITHIN_S", 0.2)
    thread = closing(lifelines[1])
    thread.join(200.0)
    assert not thread.is_alive()


def test_alone_there_is_nobody_to_wait_for():
    lifeline = Lifeline(0, ["n0"], {}, 60.0)
    lifeline.close(failed=False)
    assert lifeline.over.is_set() and not lifeline.known.is_set()
