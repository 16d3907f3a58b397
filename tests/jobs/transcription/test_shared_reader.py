"""One process that computes for all workers of a task, as on a GPU; the CPU stands in for it."""

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from htr import PRETRAINED
from htr.charset import Charset
from htr.models.registry import create
from htr.reader import Reader, files_of
from jobs.cli.command_line import main
from jobs.transcription import chunks, shared_reader
from jobs.transcription.chunks import ChunkWorkers
from jobs.transcription.shared_reader import RemoteReader, SharedReader


@pytest.fixture
def lines(tmp_path, draw) -> Path:
    folder = tmp_path / "lines"
    folder.mkdir()
    for number in range(7):
        cv2.imwrite(str(folder / f"{number}.png"), draw("grippe " * (1 + number % 3), 40 + number))
    return folder


@pytest.fixture
def attention(tmp_path) -> Path:
    torch.manual_seed(4)
    made, charset = create("attention", "tiny", 12), Charset("abcdefghijkl")
    (tmp_path / "run" / "model").mkdir(parents=True)
    for name, content in files_of(made, charset, "attention", "tiny", 7).items():
        (tmp_path / "run" / "model" / name).write_bytes(content)
    return tmp_path / "run"


def as_gpu(monkeypatch) -> list[SharedReader]:
    """The CPU is taken for a GPU from now on -> for each batch that is read, the shared reader that read it."""
    read, answer = [], SharedReader.answer

    def noted(self, *asked):
        read.append(self)
        return answer(self, *asked)

    monkeypatch.setattr(chunks, "shares_reader", lambda device: True)
    monkeypatch.setattr(SharedReader, "answer", noted)
    return read


@pytest.mark.parametrize("kind", ["greedy", "beam", "attention"])
def test_workers_that_share_a_reader_write_what_one_process_writes(
    kind, lines, untrained, attention, tmp_path, monkeypatch, one_thread
):
    model = {"greedy": untrained, "beam": PRETRAINED, "attention": attention}[kind]
    options = ["--decode", "beam"] if kind == "beam" else []
    options += ["--model", model, "--chunk", 3, "--batch", 2, "--device", "cpu", "--amp", "off"]

    def read(name: str, workers: int) -> dict[str, bytes]:
        argv = ["transcribe", lines, "--out", tmp_path / name / "o.csv", "--workers", workers, *options]
        (tmp_path / name).mkdir()
        assert main([str(word) for word in argv]) == 0
        found = [path for path in (tmp_path / name).rglob("*") if path.suffix in (".csv", ".parquet")]
        return {path.name: path.read_bytes() for path in found}

    alone = read("alone", 1)
    batches, workers, init = as_gpu(monkeypatch), [], ChunkWorkers.__init__
    monkeypatch.setattr(ChunkWorkers, "__init__", lambda self, *args: init(self, *args) or workers.append(self))
    assert read("shared", 2) == alone and len(alone) == 4
    assert len(batches) >= 5 and len(set(batches)) == 1  # of three chunks: nothing was computed in a worker
    assert workers[0].address is None  # it is closed: what is still to do connects to none


def test_the_process_that_holds_the_gpu_has_a_cpu_and_one_worker_at_least(monkeypatch):
    for cpus, workers in ((8, 7), (2, 1), (1, 1)):
        monkeypatch.setattr(chunks, "cpus_of_task", lambda cpus=cpus: cpus)
        assert chunks.workers_beside("cuda:0") == workers and chunks.workers_beside("cpu") == cpus


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gpu_out_of_memory_is_one_line_of_the_verb(workers, lines, untrained, tmp_path, monkeypatch, capsys):
    def full(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    as_gpu(monkeypatch)
    monkeypatch.setattr(Reader, "encode", full)
    options = ["--model", untrained, "--out", tmp_path / "o.csv", "--workers", workers, "--chunk", 2, "--device", "cpu"]
    assert main([str(word) for word in ("transcribe", lines, *options)]) == 1
    said = capsys.readouterr().err
    assert "memory is too small for" in said and "set a smaller --batch" in said and "Traceback" not in said


def test_many_workers_come_and_go_and_strangers_are_not_heard(untrained, monkeypatch):
    reader = Reader.load(untrained / "model")
    images = torch.randint(0, 255, (3, 1, reader.geometry.height, 160), dtype=torch.uint8)
    widths = torch.tensor([160, 90, 40])
    expected = reader.read_batch(images, widths)
    with SharedReader(reader, torch.no_grad) as shared:
        for _ in range(5):
            with monkeypatch.context() as as_stranger, pytest.raises(shared_reader.AuthenticationError):
                as_stranger.setattr(shared_reader, "key", lambda: b"guess")
                RemoteReader.connect(shared.address, untrained / "model", None)
            worker = RemoteReader.connect(shared.address, untrained / "model", None)
            assert worker.read_batch(images, widths) == expected
            worker.connection.close()
    assert not shared.thread.is_alive() and not Path(shared.address).exists()
    assert np.isfinite([found.confidence for found in expected]).all()


def test_a_worker_that_dies_as_it_connects_keeps_nobody_from_the_end(untrained):
    """The thread that lets workers in may have ended before it is told to."""
    with SharedReader(Reader.load(untrained / "model"), torch.no_grad) as shared:
        shared.closed = True
        with socket.socket(socket.AF_UNIX) as dying:
            dying.connect(shared.address)
        shared.thread.join()
    assert not Path(shared.address).exists()
