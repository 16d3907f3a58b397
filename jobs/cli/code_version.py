"""The version of this code: the commit of a checkout or of a snapshot."""

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SNAPSHOT = "SNAPSHOT"  # a file that marks a copy of the code (see jobs.launch.code_snapshot), and holds its commit


def code_version(home: Path = CHECKOUT) -> str:
    """The commit of a checkout, 12 digits, with + where files differ from it; of a snapshot, the commit it was copied
    from; "unknown" where git does not answer.
    """
    git = ["git", "-C", str(home)]
    try:
        if (home / SNAPSHOT).exists():
            return (home / SNAPSHOT).read_text(encoding="utf-8").strip()
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
