"""The chunks of a transcription's task: which are done, and the worker processes that do the others."""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import torch

from htr.forms.prepared import prepare_forms
from htr.reader import Reader
from jobs.distributed.cpus import cpus_of_task
from jobs.distributed.precision import precision
from jobs.launch.under_way import parts_done, under_way
from jobs.transcription.inputs import Chunk, Input
from jobs.transcription.page_xml import done, is_done, marked, write_pages
from jobs.transcription.predictions import write_part
from jobs.transcription.results import decide, read_part


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

    def part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"

    def is_done(self, number: int) -> bool:
        return self.part(number).exists() and (not self.args.xml or is_done(self.args.xml, self.mark(number)))

    def all_done(self, count: int) -> set[int]:
        """Of the chunks up to this number, by one look at each folder, however many they are."""
        names = [f"{number:06d}" for number in range(count)]
        found = {int(name) for name in parts_done(self.folder, names)}
        return found & marked(self.args.xml, self.mark, found) if self.args.xml else found

    def mark(self, number: int) -> str:
        return f"{number:06d}-{self.asked}.done"

    def each(self, todo: list[int], source: Input, chunks: list[tuple[int, int]]) -> Iterator[int]:
        """Do these chunks in worker processes, one thread each. -> the number of each, as soon as it is done."""
        workers = max(min(self.args.workers or cpus_of_task(), len(todo)), 1)
        if workers == 1:
            for number in todo:
                first, last = chunks[number]
                read_and_write(self, number, first, source.chunk(first, last))
                yield number
            return
        # forkserver: a worker that is killed is noticed, and none inherits threads
        context = multiprocessing.get_context("forkserver")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            waiting, rest = {}, iter(todo)
            try:
                while True:
                    # a few ahead: half a million chunks of a table need not wait in memory
                    for number in rest:
                        first, last = chunks[number]
                        waiting[pool.submit(read_and_write, self, number, first, source.chunk(first, last))] = number
                        if len(waiting) >= 2 * workers:
                            break
                    if not waiting:
                        return
                    for job in concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED").done:
                        job.result()
                        yield waiting.pop(job)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


@lru_cache(maxsize=1)
def reader_of(model: Path, device: str, decoding: Path | None, fingerprint: str) -> Reader:
    """Of this process, loaded once; `fingerprint` tells that its files have become others."""
    return Reader.load(model, device, decoding)


def read_and_write(workers: ChunkWorkers, number: int, first: int, chunk: Chunk) -> None:
    """Read the chunk unless its part is there, write its pages if they are asked for."""
    with under_way(workers.folder, f"{number:06d}") as ours:
        if ours:
            write_chunk(workers, number, first, chunk)


def write_chunk(workers: ChunkWorkers, number: int, first: int, chunk: Chunk) -> None:
    args, part = workers.args, workers.part(number)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    # one each: sums of floats in another order are other bits, and as many processes as CPUs are at work anyway
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        if not part.exists():
            reader = reader_of(workers.model, workers.device, workers.decoding, workers.asked)
            forms = prepare_forms(args.forms) if chunk.kind == "fields" else None
            mixed, _ = precision(workers.amp, torch.device(workers.device))
            with mixed():
                write_part(part, chunk, first, reader, forms, args.rulings, args.batch)
        if args.xml and not workers.is_done(number):
            promise = None
            if args.promise:
                from htr.reliability.promise import Promise

                promise = Promise.load(args.promise)
            write_pages(decide(read_part(part), promise, args.sure), chunk.kind, args.xml)
            done(args.xml, workers.mark(number))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
