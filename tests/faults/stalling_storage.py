"""python stalling_storage.py FOLDER MOUNT: FOLDER as FUSE shows it at MOUNT, until FOLDER.stalled is there.

From then on nobody gets an answer, as of a file server that is gone; like NFS mounted hard, who waits can be killed.
"""

import os
import sys
import time
from pathlib import Path

import mfusepy

STAT = ("st_mode", "st_size", "st_mtime", "st_nlink", "st_uid", "st_gid")


class Stalling(mfusepy.Operations):
    def __init__(self, folder: Path):
        self.folder, self.stalled = str(folder), folder.with_name(f"{folder.name}.stalled")

    def real(self, path: str) -> str:
        while self.stalled.exists():
            time.sleep(0.1)
        return self.folder + path

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self.real(path))
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from None
        return {name: getattr(found, name) for name in STAT}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.real(path))]

    def open(self, path, flags):
        return os.open(self.real(path), os.O_RDONLY)

    def read(self, path, size, offset, fh):
        self.real(path)
        return os.pread(fh, size, offset)

    def release(self, path, fh):
        os.close(fh)


if __name__ == "__main__":
    source, mount = map(Path, sys.argv[1:])
    mfusepy.FUSE(Stalling(source), str(mount), foreground=True, ro=True, direct_io=True)
