"""The chunks of a transcription's task: which are done, and the worker processes that do the others."""

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import cv2
import torch

from htr.forms.prepared import prepare_forms
from htr.reader import Reader
from htr.worker_pool import worker_pool
from jobs.distributed.cpus import cpus_of_task
from jobs.distributed.precision import precision
from jobs.launch.part_watchdog import watch_besides
from jobs.launch.under_way import parts_done, under_way
from jobs.transcription.inputs import Chunk, Input
from jobs.transcription.page_xml import done, is_done, marked, write_pages
from jobs.transcription.predictions import write_part
from jobs.transcription.results import decide, read_part
from jobs.transcription.shared_reader import RemoteReader, SharedReader


class ChunkWorkers:
    """What is to be done to each chunk: a part under `folder` and, if args.xml asks for them, its pages.

    `asked`: a fingerprint of all that both are made by; `args`: the settings of jobs.transcribe.
    """

    def __init__(
        self,
        args,
        folder: Path,
        model: Path,
        decoding: Path | None,
        device: str,
        amp: str,
        asked: str,
    ):
        self.args, self.folder, self.model, self.decoding, self.device = args, folder, model, decoding, device
        self.amp, self.asked = amp, asked
        self.address: str | None = None  # of the reader that worker processes share

    def part(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def is_done(self, name: str) -> bool:
        return self.part(name).exists() and (not self.args.xml or is_done(self.args.xml, self.mark(name)))

    def all_done(self, names: Iterable[str]) -> set[str]:
        """Those of these chunks that are finished, by one listing of each folder."""
        found = parts_done(self.folder, list(names))
        return marked(self.args.xml, self.mark, found) if self.args.xml else found

    def mark(self, name: str) -> str:
        """The file beside the PAGE XML which says that all of this chunk's is there."""
        return f"{name}-{self.asked}.done"

    def each(self, todo: Sequence[str], source: Input, chunks: dict[str, tuple[int, int]]) -> Iterator[str]:
        """Do the chunks of these names in worker processes, with one thread each. -> each name as soon as its chunk is
        finished.

        `chunks`: for each chunk its first item, and the one after its last.
        """
        workers = max(min(self.args.workers or workers_beside(self.device), len(todo)), 1)
        if workers == 1 and (self.args.workers or len(todo) <= 1 or not shares_reader(self.device)):
            for name in todo:
                read_and_write(self, name, chunks[name][0], source.chunk(*chunks[name]))
                yield name
        elif shares_reader(self.device):
            mixed, _ = precision(self.amp, torch.device(self.device))
            with watch_besides(self.folder, "loading the model"):
                reader = Reader.load(self.model, self.device, self.decoding)
            with SharedReader(reader, mixed) as shared:
                self.address = shared.address
                try:
                    yield from self.in_processes(workers, todo, source, chunks)
                finally:
                    self.address = None  # chunks that others left behind may be done by this process
        else:
            yield from self.in_processes(workers, todo, source, chunks)

    def in_processes(
        self, workers: int, todo: Sequence[str], source: Input, chunks: dict[str, tuple[int, int]]
    ) -> Iterator[str]:
        with worker_pool(workers) as pool:
            waiting, rest = {}, iter(todo)
            while True:
                # a few ahead: half a million chunks of a table need not wait in memory
                for name in rest:
                    chunk = source.chunk(*chunks[name])
                    waiting[pool.submit(read_and_write, self, name, chunks[name][0], chunk)] = name
                    if len(waiting) >= 2 * workers:
                        break
                if not waiting:
                    return
                for job in concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED").done:
                    job.result()
                    yield waiting.pop(job)


def shares_reader(device: str) -> bool:
    """Whether one process computes for all: each process that holds a GPU takes some of its memory and its time."""
    return torch.device(device).type != "cpu"


def workers_beside(device: str) -> int:
    """Worker processes of a task that is not told how many: where this process computes for them, one CPU is its."""
    return max(cpus_of_task() - shares_reader(device), 1)


@lru_cache(maxsize=1)
def reader_of(model: Path, device: str, decoding: Path | None, address: str | None, fingerprint: str) -> Reader:
    """The reader of this process, loaded once; another `fingerprint` means that its files have changed. `address`: of
    the process that computes for this one, if one does.
    """
    return RemoteReader.connect(address, model, decoding) if address else Reader.load(model, device, decoding)


def read_and_write(workers: ChunkWorkers, name: str, first: int, chunk: Chunk) -> None:
    """Do the chunk, unless another task has it under way. `first`: the number of its first item."""
    with under_way(workers.folder, name) as ours:
        if ours:
            write_chunk(workers, name, first, chunk)


def write_chunk(workers: ChunkWorkers, name: str, first: int, chunk: Chunk) -> None:
    """Write the part unless it is there, and the PAGE XML if it is asked for."""
    args, part = workers.args, workers.part(name)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    # one each: sums of floats in another order are other bits, and as many processes as CPUs are at work anyway
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        if not part.exists():
            reader = reader_of(workers.model, workers.device, workers.decoding, workers.address, workers.asked)
            forms = prepare_forms(args.forms) if chunk.kind == "fields" else None
            # where the network is, there it computes in this precision
            mixed = nullcontext if workers.address else precision(workers.amp, torch.device(workers.device))[0]
            with mixed():
                write_part(part, chunk, first, reader, forms, args.rulings, args.batch)
        if args.xml and not workers.is_done(name):
            promise = None
            if args.promise:
                from htr.reliability.promise import Promise

                promise = Promise.load(args.promise)
            write_pages(decide(read_part(part), promise, args.sure), chunk.kind, args.xml)
            done(args.xml, workers.mark(name))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
