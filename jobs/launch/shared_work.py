"""Work in parts that the tasks of an array share: each does its own parts, then what tasks that died left of them, and
the one that ends last puts all together. What each part is, the verb knows; marks and who lives: under_way.py.

    work = SharedWork("align", "align", "shards", shards, folder, "parts/")
    with Progress("align", len(work.todo), work.unit) as progress:
        for shard in work.each(do):
            progress.advance()
    if work.is_left_to_others():
        return 0
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from jobs.cli.console import log
from jobs.distributed.work_sharding import more_tasks_than, share_of_work
from jobs.launch.under_way import ENDING, ended, left_behind, note_work, parts_done
from shards import files


def own_share(verb: str, doing: str, unit: str, parts: Sequence[str], done: set[str]) -> tuple[list[str], list[str]]:
    """-> this task's parts, and those of them that are not `done`; how many, goes to the log. `doing`: what is done to
    a part, for the log (read, write)."""
    task, tasks = share_of_work()
    mine = [part for number, part in enumerate(parts) if number % tasks == task]
    todo = [part for part in mine if part not in done]
    if idle := more_tasks_than(len(parts), unit):
        log(f"{verb}: {idle}")
    log(f"{verb}: task {task + 1} of {tasks}, {len(todo)} of its {len(mine)} {unit} to {doing}")
    return mine, todo


def agreed_note(path: Path, make: Callable[[], dict]) -> dict:
    """What all tasks work by: the JSON at this path, which the first task writes, from what `make` gives."""
    if not path.exists():
        content = files.to_json(make())
        with files.attempt_at(path) as attempt:
            files.write_synced(attempt, content)
            files.commit(attempt, path)
    return files.read_json(path, f"remove {path.parent} and begin again")


def check_same(folder: Path, before: dict, asked: dict) -> None:
    """Raises ValueError where the work in this folder was begun with other settings than those asked for now, or on
    other shards (`index`, the digest of what index.json says; older notes lack it)."""
    differ = [name for name, value in asked.items() if name != "index" and before.get(name) != value]
    if differ:
        raise ValueError(f"{folder} was begun with another {', '.join(differ)}: give another --name, or remove it")
    if before.get("index", asked.get("index")) != asked.get("index"):
        raise ValueError(
            f"{folder} was begun on other shards: the data set was made anew since, from other images or by another "
            f"version: give another --name, or remove it"
        )


class SharedWork:
    """A task's view of the work. `parts`: the names of all of them.

    `done` tells which are finished; by default those that have a file FOLDER / PREFIX + NAME + ENDING. `about`: the
    path that a person gives to `status` (default: the folder).
    """

    def __init__(
        self,
        verb: str,
        doing: str,
        unit: str,
        parts: Sequence[str],
        folder: Path,
        prefix: str = "",
        *,
        ending: str = ENDING,
        done: Callable[[], set[str]] | None = None,
        about: Path | None = None,
    ):
        self.verb, self.unit, self.parts, self.folder, self.about = verb, unit, parts, folder, about or folder
        self.done = done or (lambda: parts_done(folder / prefix, parts, ending))
        note_work(folder, verb, unit, parts, prefix, ending)
        self.mine, self.todo = own_share(verb, doing, unit, parts, self.done())

    def each(self, do: Callable[[Sequence[str]], Iterable[str]]) -> Iterator[str]:
        """Do this task's parts, then those that tasks which died left of them. -> the name of each of the first, when
        it is done.

        `do` does the parts of these names and yields each name, also that of a part which another task has under way.
        """
        yield from do(self.todo)
        done = self.done()
        if left := left_behind(self.folder, [part for part in self.mine if part not in done]):
            for _ in do(left):
                pass  # it was yielded before

    def is_left_to_others(self) -> bool:
        """Whether parts are still missing; then the log says so. If none is, the marks of the tasks are removed."""
        left = len(self.parts) - len(self.done())
        if left:
            log(f"{self.verb}: this task is done; {left} of {len(self.parts)} {self.unit} are left to others "
                f"(python -m jobs status {files.in_shell(self.about)})")  # fmt: skip
        else:
            ended(self.folder)
        return left > 0
