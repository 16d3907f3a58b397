"""Measurements that are kept as they are made, a JSON line each, so that a benchmark that was stopped goes on.

records = Records(path, code=digest_of(files))    # path None: nothing is kept
for key, entry in records.of(jobs, measure, workers=2): ...   # those that are kept, then the others as they are done

A line counts for the code that it was measured with: after a change of the files that `digest_of` was given, all is
measured anew.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

Job = tuple[str | int, ...]


def digest_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Records:
    def __init__(self, path: Path | None, code: str):
        self.path, self.code, self.known = path, code, {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that was being written when it was stopped: measured again
                if entry["code"] == code:
                    self.known[tuple(entry["job"])] = entry["found"]

    def of(self, jobs: Sequence[Job], measure: Callable[[Job], dict], workers: int) -> Iterator[tuple[Job, dict]]:
        missing = [job for job in jobs if job not in self.known]
        yield from ((job, self.known[job]) for job in jobs if job in self.known)
        if workers == 1:
            yield from (self.kept(job, measure(job)) for job in missing)
            return
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for job, found in zip(missing, pool.map(measure, missing), strict=True):
                yield self.kept(job, found)

    def kept(self, job: Job, found: dict) -> tuple[Job, dict]:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"code": self.code, "job": job, "found": found}) + "\n")
        return job, found
