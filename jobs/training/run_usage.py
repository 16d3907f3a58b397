"""Resources of a training: ranks, hosts, hours, GPU-hours and CPU-hours over all its starts."""

from pathlib import Path

from jobs.training.run_lock import read_json
from jobs.training.run_status import number, read, text

USED = ("world", "hosts", "device", "starts", "hours", "gpu_hours", "cpu_hours")


def usage(run: Path) -> dict:
    """What the training took: USED and the code of its last start; None where it was not recorded.

    Hours are summed over its starts. GPU-hours count a GPU a rank, and are 0 on CPUs; CPU-hours count the CPUs that the
    ranks could use. Raises ValueError for a damaged file.
    """
    status = read_json(run / "status.json") or {}
    record = read(run / "provenance.json") if (run / "provenance.json").exists() else {}
    starts = [start for start in record.get("starts") or () if isinstance(start, dict)]
    last = starts[-1] if starts else {}
    if starts and status.get("begun") == last.get("begun"):  # else it is an earlier start's
        starts[-1] = last = last | {"seconds": status.get("seconds")}
    seconds = [number(start, "seconds") for start in starts]
    gpus = [{"cuda": start["world"], "cpu": 0}.get(start.get("device")) if number(start, "world") else None
            for start in starts]  # fmt: skip
    return {
        "world": number(status, "world") or number(last, "world"),
        "hosts": len(last.get("hosts") or ()) or None,
        "device": text(last, "device"),
        "starts": len(starts) or None,
        "hours": total(seconds, [1] * len(starts)),
        "gpu_hours": total(seconds, gpus),
        "cpu_hours": total(seconds, [number(start, "cpus") for start in starts]),
        "code": text(last, "code"),
    }


def total(seconds: list[float | None], each: list[int | None]) -> float | None:
    """Hours; None where one of the starts is not known, since a sum of the rest would seem to be the whole."""
    if not seconds or None in seconds or None in each:
        return None
    return round(sum(s * n for s, n in zip(seconds, each, strict=True)) / 3600, 4)
