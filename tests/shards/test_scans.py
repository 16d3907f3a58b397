"""Images of a source: read once a page, never from outside of its folder, and storage that fails is no missing file."""

import errno
import io
import os
import tarfile

import cv2
import numpy as np
import pytest

from htr.io import tar_members
from htr.lines.normalise import RejectedInput
from shards import scans
from shards.scans import Scans
from shards.tar import Tar


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "in").mkdir(parents=True)
    for path in (folder / "a.png", folder / "in" / "b.png", tmp_path / "secret.png"):
        cv2.imwrite(str(path), np.full((20, 30), 200, np.uint8))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "inward.png").symlink_to("in/b.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.png")
    (folder / "huge.png").touch()
    os.truncate(folder / "huge.png", 2 << 30)
    return folder


def test_a_page_is_read_once(images, monkeypatch):
    scans = Scans(images)
    first = scans.read("in/b.png")
    (images / "in" / "b.png").unlink()
    assert scans.read("in/b.png") is first
    scans.read("a.png")
    with pytest.raises(RejectedInput, match="missing"):
        scans.read("in/b.png")


@pytest.mark.parametrize("name", ["a.png", "./a.png", "in/../a.png", "inward.png"])
def test_within_the_folder(images, name):
    assert Scans(images).read(name).shape == (20, 30)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../secret.png", "outside"),
        ("in/../../secret.png", "outside"),
        ("/etc/hostname", "outside"),
        ("out.png", "outside"),
        ("up/secret.png", "outside"),
        ("loop.png", "missing"),
        ("pipe.png", "missing"),
        ("in", "missing"),
        ("in/", "missing"),
        ("..", "missing"),
        ("nothing.png", "missing"),
        ("a.png/b.png", "missing"),
        ("x" * 300, "missing"),
        ("a.png\0.jpg", "missing"),
        ("huge.png", "too large"),
        ("", "no image"),
    ],
)
def test_a_name_that_gives_no_image(images, name, reason):
    scans = Scans(images)
    for _ in range(2):  # the second row of the page
        with pytest.raises(RejectedInput, match=reason):
            scans.read(name)


@pytest.mark.parametrize("page", ["-1", "x", "1.5", "²", "99999999"])
def test_a_page_is_a_number(images, page):
    with pytest.raises(RejectedInput, match="page is not a number"):
        Scans(images).read("a.png", page)


def test_a_file_system_that_fails_is_no_reject(images, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    scans = Scans(images)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Input/output"):
            scans.read("a.png")
    assert scans.read("a.png").shape == (20, 30)


# ------------------------------------------------------------------------------------------------ members of a tar

LONG = "k" * 120  # GNU's long names


def encoded(shade: int) -> bytes:
    return cv2.imencode(".png", np.full((20, 30), shade, np.uint8))[1].tobytes()


@pytest.fixture
def shard(tmp_path):
    """A shard of three images in the folder that is given back."""
    folder = tmp_path / "data"
    folder.mkdir()
    with open(folder / "train-00000.tar", "wb") as file:
        tar = Tar(file)
        for number, key in enumerate(("a", "b~2e_Ia_0", LONG)):
            tar.add(key, {"png": encoded(50 * number), "txt": b"t", "json": b"{}"})
        tar.close()
    return folder


def test_members_of_a_shard(shard):
    one = Scans(shard)
    for number, key in enumerate(("a", "b~2e_Ia_0", LONG)):
        assert (one.read(f"train-00000.tar/{key}.png") == 50 * number).all()
    assert (Scans(shard.parent).read("data/train-00000.tar/a.png") == 0).all()
    with tarfile.open(shard / "train-00000.tar") as tar, open(shard / "train-00000.tar", "rb") as file:
        assert scans.places(file) == {member.name: (member.offset_data, member.size) for member in tar}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_as_others_write_it(shard, kind):
    with tarfile.open(shard / "other.tar", "w", format=kind) as tar:
        for name, shade in (("folder/one.png", 0), ("two.png", 0), ("two.png", 100)):
            info = tarfile.TarInfo(name)
            info.size = len(encoded(shade))
            tar.addfile(info, io.BytesIO(encoded(shade)))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    one = Scans(shard)
    assert (one.read("other.tar/two.png") == 100).all()  # the last of twins
    for name in ("link.png", "one.png", "three.png"):
        with pytest.raises(RejectedInput, match="image is missing in its tar file"):
            one.read(f"other.tar/{name}")


def test_a_tar_is_looked_through_once(shard, monkeypatch):
    calls, places = [], scans.places
    monkeypatch.setattr(scans, "places", lambda file: calls.append(1) or places(file))
    one = Scans(shard)
    for key in ("a", "b~2e_Ia_0", "nothing", LONG):
        try:
            one.read(f"train-00000.tar/{key}.png")
        except RejectedInput as reason:
            assert key == "nothing" and "missing in its tar" in str(reason)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content[:532], "damaged"),
        (lambda content: content[:512], "damaged"),
        (lambda content: b"x" * 2000, "damaged"),
        (lambda content: content[:124] + b"77777777777\0" + content[136:], "damaged"),
        (lambda content: b"", "missing in its tar"),
        (lambda content: bytes(10240), "missing in its tar"),
    ],
)
def test_a_tar_that_is_none(shard, change, reason):
    path = shard / "train-00000.tar"
    path.write_bytes(change(path.read_bytes()))
    for _ in range(2):
        with pytest.raises(RejectedInput, match=reason):
            Scans(shard).read(f"train-00000.tar/{LONG}.png")


def test_a_member_that_asks_for_more_than_there_is_memory(shard, monkeypatch):
    info = tarfile.TarInfo("x" * 99)
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with open(shard / "huge.tar", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 41)
    with pytest.raises(RejectedInput, match="damaged"):
        Scans(shard).read("huge.tar/a.png")
    monkeypatch.setattr(tar_members, "MAX_TAR_MEMBERS", 3)
    with pytest.raises(RejectedInput, match="too many members"):
        Scans(shard).read("train-00000.tar/a.png")


def test_no_way_out_through_a_tar(shard, tmp_path):
    os.rename(shard / "train-00000.tar", tmp_path / "out.tar")
    (shard / "link.tar").symlink_to(tmp_path / "out.tar")
    for name in ("../out.tar/a.png", "link.tar/a.png"):
        with pytest.raises(RejectedInput, match="outside"):
            Scans(shard).read(name)
    with pytest.raises(RejectedInput, match="image file is missing"):
        Scans(shard).read("nothing.tar/a.png")
    with pytest.raises(RejectedInput, match="image file is missing"):
        Scans(shard).read("nothing.zip/a.png")
