"""The tar is tarfile's own, byte for byte, and what it says of offsets is true."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.tar import Tar, header, text_offset

LETTERS = st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"])
NAMES = st.text(LETTERS, min_size=1, max_size=150)


@given(name=NAMES, size=st.integers(0, 2**33 - 1))
def test_a_header_is_what_tarfile_writes(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o640
    assert header(name, size) == info.tobuf(tarfile.GNU_FORMAT)


@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 1500)), max_size=6))
def test_an_archive_is_what_tarfile_writes(sizes):
    ours, theirs = io.BytesIO(), io.BytesIO()
    tar = Tar(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, (image, text) in enumerate(sizes):
            members = {"png": b"i" * image, "txt": b"t" * text}
            tar.add(f"key-{number}", members)
            for ending, content in members.items():
                info = tarfile.TarInfo(f"key-{number}.{ending}")
                info.size, info.mode = len(content), 0o640
                archive.addfile(info, io.BytesIO(content))
    digest = tar.close()
    assert ours.getvalue() == theirs.getvalue() and tar.size == len(ours.getvalue())
    import hashlib

    assert digest == hashlib.sha256(ours.getvalue()).hexdigest()


@pytest.mark.parametrize("length", [1, 95, 96, 97, 140, 200])
def test_offsets_lead_to_the_image_and_the_text(length):
    file, key = io.BytesIO(), "k" * length
    tar = Tar(file)
    tar.add("before", {"jpg": b"x" * 700, "txt": b""})
    offset = tar.add(key, {"jpg": b"image" * 200, "txt": "été".encode()})
    tar.close()
    content = file.getvalue()
    assert content[offset : offset + 1000] == b"image" * 200
    at = offset + text_offset(1000, key)
    assert content[at : at + 5].decode() == "été"
