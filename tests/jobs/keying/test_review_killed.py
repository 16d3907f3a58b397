"""review killed at random moments of a session: what was acknowledged is all there, nothing is there twice."""

import contextlib
import http.client
import json
import random
import signal
import threading
from pathlib import Path

from keyed import Running, identity, post, rows_of, serving, table

from jobs.keying.journal import Journal

KILLS = 30


class Operator(threading.Thread):
    """Keys as fast as it can until the server is gone; `acknowledged`: the texts that it was told are saved."""

    def __init__(self, running: Running, name: str, ready: threading.Semaphore, acknowledged: dict, open_: dict):
        super().__init__()
        self.running, self.name_, self.ready = running, name, ready
        self.acknowledged, self.open = acknowledged, open_

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            tab = post(self.running, "begin", name=self.name_)["tab"]
            rows = post(self.running, "next", tab=tab, count=2)["rows"]
            while rows:
                row = rows.pop(0)
                line, text = int(row["line"]), f"{self.name_} {row['line']} {identity()[:6]}"
                one = identity()
                self.open[line] = text  # it may be saved, and nobody was told
                asked = {"tab": tab, "id": one, "row": row["row"], "kind": "text", "text": text, "count": 1}
                found = post(self.running, "answer", **asked)
                assert "refused" not in found
                self.acknowledged[line] = text
                del self.open[line]
                self.ready.release()
                rows += found["rows"]
                if len(self.acknowledged) % 7 == 0:
                    back = post(self.running, "undo", tab=tab, id=identity(), answer=one)
                    if "item" in back:
                        del self.acknowledged[line]
                        rows.insert(0, back["item"])


def test_thirty_kills_lose_nothing_and_double_nothing(tmp_path: Path):
    """The moment is a number of answers and then some: it depends on progress, not on time."""
    made, rng = table(tmp_path, 3000), random.Random(7)
    acknowledged, opened = {}, {}
    for _ in range(KILLS):
        ready = threading.Semaphore(0)
        with serving(made, log=tmp_path / "log") as running:
            operators = [Operator(running, name, ready, acknowledged, opened) for name in ("Anne", "Bertrand")]
            for operator in operators:
                operator.start()
            for _ in range(rng.randrange(1, 60)):
                while not ready.acquire(timeout=1):
                    assert any(operator.is_alive() for operator in operators)
            threading.Event().wait(rng.random() * 0.01)  # in the middle of a request
            running.stop(signal.SIGKILL)
            for operator in operators:
                operator.join()
    assert len(acknowledged) > 10 * KILLS
    with serving(made, log=tmp_path / "log") as running:
        assert running.stop() == 0
    keyed = {int(row["line"]): row["text"] for row in rows_of(tmp_path / "review-keyed.csv") if row["text"]}
    lost = {line for line, text in acknowledged.items() if keyed.get(line) not in (text, opened.get(line))}
    assert not lost, f"{len(lost)} acknowledged answers are not in the table"
    # what is there beside them was sent, and the server died before it could say so
    assert all(keyed[line] == opened.get(line) for line in keyed.keys() - acknowledged.keys())
    journal = Journal(tmp_path / "review.csv.keying" / "journal.jsonl")
    ids = [record["id"] for record in journal.records]
    standing = {record["id"]: record["row"] for record in journal.records if "row" in record}
    for record in journal.records:
        standing.pop(record.get("withdraws"), None)
    journal.close()
    assert len(ids) == len(set(ids)) and len(standing.values()) == len(set(standing.values()))
