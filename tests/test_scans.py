"""Images of a source: read once a page, never from outside of its folder, and storage that fails is no missing file."""

import errno
import os

import cv2
import numpy as np
import pytest

from htr.images.line import BadLine
from shards.scans import Scans


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
    with pytest.raises(BadLine, match="missing"):
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
        with pytest.raises(BadLine, match=reason):
            scans.read(name)


@pytest.mark.parametrize("page", ["-1", "x", "1.5", "²", "99999999"])
def test_a_page_is_a_number(images, page):
    with pytest.raises(BadLine, match="page is not a number"):
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
