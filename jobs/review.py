"""python -m jobs review TABLE …: a page at which people key, check and correct, on this machine alone.

    python -m jobs review scans/review.csv                                   the table that transcribe wrote
    python -m jobs review scans/review.csv scans/review-sample.csv           and the sample, which is keyed blind
    python -m jobs review texts.parquet --images scans/ --promise runs/ctc/reliability/fields --sample 150 --double 0.1
    python -m jobs review runs/ctc/audit/val.csv                             transcriptions against their readings
    python -m jobs review scans/review.csv --write                           no page: only write the table, and figures

It prints an address with a token, to be opened in a browser on this machine, and the command that opens a tunnel to it
from another one. Everybody who has the address may key, under the name that they type. An answer is on disk, in
TABLE.keying/journal.jsonl, before the next row is shown. The result, NAME-keyed.csv beside the images, is written at
the end (Ctrl-C), when all rows are done, and on request from the page of progress. `preprocess`, `monitor` and `audit
--apply` take it as it is. The input table is never changed, nor is a result that somebody else has changed. The same
command continues where it ended, also after the machine has failed.

Rows of a sample, and the share --double, show no reading. A row of --double goes to two people, and to a third where
they differ. --order useful begins with the rows that a reader would learn most from, --order unsure with the least sure
ones. TABLE.keying and the results hold texts and names: only their owner and group may read them.
"""

import contextlib
import getpass
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import log
from jobs.cli.settings import setting

WRITING = threading.Lock()
BEAT_S = 2.0  # seconds from one heartbeat of a server to the next
SILENT_FOR_S = 20.0  # without one, seen by who wants the table, until a server on another machine is taken for dead


@dataclass(frozen=True)
class Settings:
    tables: list[Path] = setting(
        help="table that transcribe wrote (--out, --review or its sample), or that audit wrote",
        positional=True,
        metavar="TABLE",
    )
    images: Path | None = setting(None, "folder that the names of images are relative to (default: that of the table)")
    out: Path | None = setting(
        None, "table to write, if there is one table (default: NAME-keyed beside the images)", metavar="FILE"
    )
    order: Literal["certificate", "unsure", "useful"] = setting(
        "certificate",
        "which rows come first: as the table stands (certificate), the least sure (unsure), or those that "
        "teach a reader most (useful)",
    )
    double: float = setting(0.0, "share of the rows that two people key, 0 to 1", metavar="SHARE")
    sample: int = setting(
        0, "number of accepted texts of transcribe --out that are keyed without sight of the reading", metavar="N"
    )
    seed: int = setting(0, "seed of both draws", least=0)
    promise: Path | None = setting(
        None,
        "promise that accepted the texts; the figures for report go into RUN/keying",
        metavar="RUN/reliability/NAME",
    )
    run: Path | None = setting(None, "run whose folder gets the figures, in RUN/keying, if there is no promise")
    lexicon: Path | None = setting(
        None,
        "file of words to suggest, one per line (default: that of RUN/decoding, else the project's own)",
        metavar="FILE",
    )
    forms: Path | None = setting(None, "folder of templates (default: those of the project)")
    seconds: float = setting(20.0, "seconds that typing a row takes; used until 20 rows were keyed without a reading")
    port: int = setting(0, "port on 127.0.0.1; 0 takes a free one")
    write: bool = setting(False, "write the tables and the figures, and end without a page")

    @property
    def run_folder(self) -> Path | None:
        """Of the run that gets the figures."""
        return self.run or (self.promise.resolve().parents[1] if self.promise else None)


def main(args: Settings) -> int:
    import pyarrow as pa

    from htr.io.sources import is_parquet
    from jobs.keying.journal import Journal
    from jobs.keying.opening import Asked, open_table
    from jobs.keying.session import Session

    if any(is_parquet(path) for path in args.tables):
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what it freed: 120 MB of a million rows
    if not 0 <= args.double <= 1 or args.sample < 0 or args.seconds <= 0:
        raise ValueError("--double is a share from 0 to 1, --sample a number of rows, --seconds more than 0")
    if args.out and len(args.tables) > 1:
        raise ValueError("--out is for one table; of several each gets NAME-keyed beside its images")
    if len({path.resolve() for path in args.tables}) < len(args.tables):
        raise ValueError("the same table is named twice")
    unit, delta = promised(args.promise)
    asked = Asked(args.sample, args.double, args.seed, unit)
    with contextlib.ExitStack() as stack:
        tables = [open_table(path, asked, args.images, args.out) for path in args.tables]
        if len({table.out.resolve() for table in tables}) < len(tables):
            raise ValueError("two tables would be written to the same file: key them one after the other")
        journals = []
        for table in tables:
            ours = stack.enter_context(locked(table.folder))
            same_as_before(table, asked)
            journal = stack.enter_context(contextlib.closing(Journal(table.folder / "journal.jsonl", ours)))
            journals.append(journal)
            if journal.torn:
                log(f"review: {journal.torn} bytes at the end of {journal.path} were cut short and never acknowledged: "
                    "set aside beside it")  # fmt: skip
        session = Session(tables, journals, args.order)
        if not session.total:
            log("review: nothing is left to be keyed")
        try:
            if not args.write and session.total:
                with contextlib.suppress(KeyboardInterrupt):
                    serve(args, session, unit, delta)
        finally:  # after a SIGTERM too
            write(args, session, unit, delta)
    return 0


def promised(folder: Path | None) -> tuple[str, float]:
    """-> the unit that the promise accepts, its delta."""
    if folder is None:
        return "line", 0.05
    from htr.reliability.promise import Promise

    promise = Promise.load(folder)
    return promise.unit, promise.delta


# ---------------------------------------------------------------------------------------------------- on disk


def make_private(folder: Path) -> None:
    """The folder of a table's journal, which nobody else may read. Raises ValueError for a link, which may lead
    anywhere, and for a folder of somebody else that others can read.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder}: a link, which may lead anywhere: answers are kept beside the table itself")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:  # it was copied, say
        try:
            folder.chmod(0o700)
        except PermissionError:
            raise ValueError(f"{folder}: others can read it, and it is not yours: copy the table elsewhere") from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], bool]]:
    """Keep the folder of a table's journal for this process alone; it is made if there is none. -> a function that
    tells whether it still is this one's. Raises ValueError: another review that lives has it, or as make_private."""
    from shards import claim, files

    make_private(folder)
    files.sync(folder.parent)
    lock = folder / "lock"
    if lock.exists() and not claim.died_here(lock):
        log(f"review: the table is open in another review ({holder(lock)}): seeing whether that lives, "
            f"{SILENT_FOR_S:.0f} s at most")  # fmt: skip
    for left in claim.abandoned([lock], SILENT_FOR_S):
        claim.remove(left)
    with claim.hold(lock, BEAT_S) as held:
        if not held:
            raise ValueError(f"{folder}: the table is open in another review ({holder(lock)}), which is seen to live: "
                             "use that one, or end it first")  # fmt: skip
        own = holder(lock)
        yield lambda: holder(lock) == own


def holder(lock: Path) -> str:
    """Who has the lock, for a message."""
    try:
        host, pid, *_ = lock.read_text(encoding="utf-8").split()
        return f"process {pid} on {host}"
    except (OSError, ValueError):
        return "just started"


def same_as_before(table, asked) -> None:
    """Raises ValueError where the table, or what is asked for, differs from before: both decide which rows are blind,
    and which are keyed twice."""
    from shards import files

    note = table.folder / "keying.json"
    now = {"format": 1, "table": table.digest, **asdict(asked)}
    if not note.exists():
        files.replace(note, files.to_json(now))
        note.chmod(0o600)
        return
    before = json.loads(note.read_text(encoding="utf-8"))
    differ = [name for name in now if before.get(name) != now[name]]
    if differ == ["table"]:
        raise ValueError(f"{table.path}: not the table that {table.folder} was begun with: its rows may be others. "
                         "Give it another name, and key it anew")  # fmt: skip
    if differ:
        said = ", ".join(f"--{name} {before.get(name)}" for name in differ if name not in ("format", "table"))
        raise ValueError(f"{table.folder} was begun with another {', '.join(differ)}: go on with {said or 'the same'}")


def write(args: Settings, session, unit: str, delta: float) -> int:
    """Write the keyed tables, and the figures beside the journal and for `report`. -> the number of files with
    tables."""
    from jobs.keying.progress import figures
    from shards import files

    with WRITING:  # the page may ask for it while all that is done is being written
        session.forget_unsaved()
        both = zip(session.tables, session.answers, strict=True)
        written = [path for table, answers in both for path in table.write(answers.final)]
    found = figures(session, args.seconds, unit, delta)
    shown = [args.run_folder / "keying" / f"{args.tables[0].stem}.json"] if args.run_folder else []
    for path in [session.tables[0].folder / "figures.json", *shown]:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, files.to_json(found))
    log(f"review: {found['done']} of {found['total']} rows done, {found['waiting']} wait for another person: "
        f"{', '.join(map(str, written))}")  # fmt: skip
    return len(written)


# ---------------------------------------------------------------------------------------------------- the server


def serve(args: Settings, session, unit: str, delta: float) -> None:
    """Run the server until Ctrl-C or SIGTERM."""
    import uvicorn

    from jobs.keying.lexicon import Lexicon
    from jobs.keying.pictures import Pictures
    from jobs.keying.progress import figures
    from jobs.keying.server import Server

    server = Server(
        session, Pictures(args.forms), Lexicon(lexicon_of(args)),
        figures=lambda: figures(session, args.seconds, unit, delta),
        write=lambda: write(args, session, unit, delta),
    )  # fmt: skip
    token = secrets.token_urlsafe(32)
    # asyncio switches Nagle's algorithm off only for a socket that says TCP: with it every answer takes 40 ms more
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", args.port))
        listening.listen(256)  # who is told the address is not turned away
        port = listening.getsockname()[1]
        # standard output is who started it's alone; a log would keep the token
        print(f"{session.total} rows to key, {session.done} of them done. Open in a browser on this machine:\n"
              f"    http://127.0.0.1:{port}/{token}/\n"
              f"From another machine first open a tunnel there, and leave it open:\n"
              f"    ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{socket.getfqdn()}\n"
              f"Ctrl-C ends it and writes the table.", flush=True)  # fmt: skip
        config = uvicorn.Config(
            server.app(token), log_level="critical", access_log=False, server_header=False, ws="none", lifespan="off",
            http="h11", loop="asyncio", proxy_headers=False, timeout_graceful_shutdown=5, timeout_keep_alive=75,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listening])


def lexicon_of(args: Settings) -> Path | None:
    from htr import PRETRAINED

    if args.lexicon and not args.lexicon.is_file():
        raise ValueError(f"{args.lexicon}: no such lexicon")
    own = [args.run_folder / "decoding" / "lexicon.txt"] if args.run_folder else []
    found = [args.lexicon] if args.lexicon else [*own, PRETRAINED / "decoding" / "lexicon.txt"]
    return next((path for path in found if path.is_file()), None)
