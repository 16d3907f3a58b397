"""Tasks that write shards: the index is merged once, however many of them see the last shard."""

import threading

from htr.io.sources import read_source
from jobs.launch.shard_workers import write_missing
from shards import index
from shards.index import read_index
from shards.plan import Settings, make_plan
from shards.write import write_shard


def test_tasks_that_end_together_merge_once(tmp_path, source, monkeypatch):
    table, images = read_source(source)
    plan = make_plan(tmp_path / "lines", table, Settings(rows=10))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merged, both = [], threading.Barrier(3)

    def missing(plan, missing=index.missing_shards):
        found = missing(plan)
        if threading.current_thread().name.startswith("task") and not found:
            both.wait(60)  # all of them have seen the last shard
        return found

    monkeypatch.setattr(index, "merge", lambda plan, merge=index.merge: merged.append(1) or merge(plan))
    monkeypatch.setattr(index, "missing_shards", missing)
    ends = []
    tasks = [
        threading.Thread(
            name=f"task {number}", target=lambda: ends.append(write_missing(plan, images, forms=None, workers=1))
        )
        for number in range(3)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(100)
    assert ends == [0] * 3 and read_index(tmp_path / "lines").totals
    assert len(merged) == 1
