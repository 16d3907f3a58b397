"""In CI a test that is left out for a reason that nobody allowed makes the run fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENDS = {
    "skip": ("import pytest\ndef test(): pytest.skip('no file system can be mounted here')", 1),
    "mark": ("import pytest\n@pytest.mark.skipif(True, reason='no onnx')\ndef test(): pass", 1),
    "import": ("import pytest\npytest.importorskip('nothing_such', reason='no onnx')\ndef test(): pass", 1),
    "allowed": ("import pytest\n@pytest.mark.skipif(True, reason='HTR_SHARED names no folder')\ndef test(): pass", 0),
    "none": ("def test(): pass", 0),
    "failed": ("def test(): assert False", 1),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_may_be_left_out_in_ci(tmp_path, case):
    content, code = ENDS[case]
    for name in ("conftest.py", "bed.py", "browser.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "test_it.py").write_text(content)
    (tmp_path / "test_other.py").write_text("def test_other(): pass")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    for ci in ("true", ""):
        environ = os.environ | {"CI": ci, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == (code if ci or case == "failed" else 0), done.stdout + done.stderr
        assert ("SKIPPED IN CI, not on the list" in done.stdout) == bool(ci and code and case != "failed")
