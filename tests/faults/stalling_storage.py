"""python stalling_storage.py FOLDER MOUNT: FOLDER as FUSE shows it at MOUNT, to be read and written.

Stopped (SIGSTOP), nobody gets an answer, as of a file server that is gone; like NFS mounted hard, who waits can be
killed. While FOLDER.stalled is there requests are taken and not answered: who waits then can't even be killed.
"""

import os
import sys
import time
from pathlib import Path

import mfusepy

STAT = ("st_mode", "st_size", "st_mtime", "st_nlink", "st_uid", "st_gid", "st_ino")


class Stalling(mfusepy.Operations):
    def __init__(self, folder: Path):
        self.folder, self.stalled = str(folder), folder.with_name(f"{folder.name}.stalled")

    def real(self, path: str | None) -> str:
        """Where it lies; of a file that is open, nothing is asked but that storage answers."""
        while self.stalled.exists():
            time.sleep(0.1)
        return self.folder + (path or "")

    def getattr(self, path, fh=None):
        found = os.lstat(self.real(path))
        return {name: getattr(found, name) for name in STAT}

    def statfs(self, path):
        found = os.statvfs(self.real(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.real(path))]

    def open(self, path, flags):
        return os.open(self.real(path), flags)

    def create(self, path, mode, fi=None):
        return os.open(self.real(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        self.real(path)
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        self.real(path)
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.real(path), length)
        return 0

    def fsync(self, path, datasync, fh):
        self.real(path)
        os.fsync(fh)
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0

    def mkdir(self, path, mode):
        os.mkdir(self.real(path), mode)
        return 0

    def rmdir(self, path):
        os.rmdir(self.real(path))
        return 0

    def unlink(self, path):
        os.unlink(self.real(path))
        return 0

    def rename(self, old, new, flags=0):
        os.rename(self.real(old), self.real(new))
        return 0

    def link(self, target, source):
        os.link(self.real(source), self.real(target))
        return 0

    def symlink(self, target, source):
        os.symlink(source, self.real(target))
        return 0

    def readlink(self, path):
        return os.readlink(self.real(path))

    def chmod(self, path, mode):
        os.chmod(self.real(path), mode)
        return 0

    def utimens(self, path, times=None):
        os.utime(self.real(path), times)
        return 0


if __name__ == "__main__":
    source, mount = map(Path, sys.argv[1:])
    mfusepy.FUSE(Stalling(source), str(mount), foreground=True, direct_io=True, attr_timeout=0, entry_timeout=0)
