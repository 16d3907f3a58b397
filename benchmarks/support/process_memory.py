"""Memory of a process, as Linux counts it."""

from pathlib import Path


def memory_gib(process: int, kinds: tuple[str, ...] = ("Pss",)) -> float:
    """GiB of a process: the sum of these lines of /proc/PROCESS/smaps_rollup, by default all its memory.

    Pss counts a page that n processes share as an n-th of it. Pss_Anon and Pss_Shmem are what belongs to no file.
    Raises OSError where the process has ended.
    """
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return sum(sizes[kind] for kind in kinds) / 2**20
