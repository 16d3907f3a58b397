"""TensorBoard's files: the bytes are those of TensorBoard's own protocol buffers and records."""

import struct
from pathlib import Path

import pytest

from jobs.training.tensorboard import START, VERSION, Events, crc32c, event, record, summary, varint


def events_of(path: Path) -> list[bytes]:
    """The contents of a file's records; both checksums of each are looked at."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        content = data[12 : 12 + length]
        assert data[: 16 + length] == record(content)
        found.append(content)
        data = data[16 + length :]
    return found


def line(step: int, **metrics: float) -> dict:
    return {"step": step, "time": 1.5, **metrics}


def test_checksum_has_the_published_values():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize(("value", "found"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varint(value: int, found: str):
    assert varint(value).hex() == found


# written by tensorboard 2.21.0: its RecordWriter, given Event(wall_time=1.5, step=…, …).SerializeToString()
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (event(1.5, 501, START), "100000000000000095fbfe1809000000000000f83f10f5033a0208019f8d8eab"),
        (
            event(1.5, 20000, summary({"step": 7, "loss": 0.25, "slowest_rank": 3, "dev_cer": 0.0834, "time": 7.0})),
            "4d000000000000003d63d4a609000000000000f83f10a09c012a3e0a110a0a747261696e2f6c6f7373150000803e0a190a1274726169"
            "6e2f736c6f776573745f72616e6b15000040400a0e0a076465762f636572159fcdaa3d662348e4",
        ),
        (
            event(1.5, 20000, summary({"loss": float("nan")})),
            "220000000000000078113dfd09000000000000f83f10a09c012a130a110a0a747261696e2f6c6f7373150000c07fa9b2e011",
        ),
    ],
)
def test_bytes_are_those_of_tensorboard(content: bytes, found: str):
    assert record(content).hex() == found


def test_a_start_says_what_was_lost_once(tmp_path: Path):
    events = Events(tmp_path / "tensorboard")
    first, second, dev = line(50, loss=2.0), line(100, loss=1.0), line(100, dev_cer=0.5)
    for metrics in (first, second, dev):
        events.add(metrics)
    [path] = (tmp_path / "tensorboard").iterdir()
    logged = [event(1.5, metrics["step"], summary(metrics)) for metrics in (first, second, dev)]
    assert events_of(path) == [event(1.5, 0, VERSION), event(1.5, 50, START), *logged]


def test_dev_read_after_a_resume_leaves_the_line_of_its_step(tmp_path: Path):
    """A signal came before dev was read: the checkpoint's step has its line of training already."""
    Events(tmp_path).add(line(100, dev_cer=0.5))
    [path] = tmp_path.iterdir()
    assert events_of(path)[1] == event(1.5, 101, START)


def test_files_of_two_starts_are_in_order(tmp_path: Path):
    """Even when they fall into one second."""
    paths = []
    for _ in range(3):
        events = Events(tmp_path)
        events.add(line(1, loss=1.0))
        paths.append(events.path)
    assert sorted(tmp_path.iterdir()) == paths
