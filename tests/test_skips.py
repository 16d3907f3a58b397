"""In CI a test that is left out for a reason that nobody allowed makes the run fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = {
    "skip": "import pytest\ndef test(): pytest.skip('no file system can be mounted here')",
    "mark": "import pytest\n@pytest.mark.skipif(True, reason='no onnx')\ndef test(): pass",
    "import": "import pytest\npytest.importorskip('nothing_such', reason='no onnx')\ndef test(): pass",
    "allowed": "import pytest\n@pytest.mark.skipif(True, reason='HTR_SHARED names no folder')\ndef test(): pass",
    "none": "def test(): pass",
    "failed": "def test(): assert False",
}


@pytest.mark.parametrize(
    ("cases", "ci", "code", "said"),
    [
        (["skip"], "true", 1, True),
        (["mark"], "true", 1, True),
        (["import"], "true", 1, True),
        (["allowed", "none"], "true", 0, False),
        (["failed"], "true", 1, False),
        (["skip", "mark", "import", "allowed", "none"], "", 0, False),
    ],
)
def test_what_may_be_left_out_in_ci(tmp_path, cases, ci, code, said):
    for name in ("conftest.py", "bed.py", "browser.py"):
        shutil.copy(HERE / name, tmp_path)
    for case in cases:
        (tmp_path / f"test_{case}.py").write_text(CASES[case])
    (tmp_path / "test_other.py").write_text("def test_other(): pass")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    environ = os.environ | {"CI": ci, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("SKIPPED IN CI, not on the list" in done.stdout) == said
