"""Set-up's decisions, without a build: for GPUs or not, with which compiler, nvcc and modules."""

import os
import subprocess
from pathlib import Path

import pytest

from jobs.distributed import horovod_backend

CHECKOUT = Path(__file__).parent.parent


def say(command: str, **environ: str) -> tuple[int, str]:
    """What a line of bash says that has sourced the functions; PATH leads to bash's own tools alone."""
    known = {"PATH": "/usr/bin:/bin", "HTR_SITE": "/nowhere"} | environ
    script = f"set -euo pipefail; . slurm/toolchain.sh; {command}"
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=CHECKOUT, env=known, capture_output=True, text=True, timeout=250
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_build_is_for_gpus_where_there_is_one_or_where_it_was_one(tmp_path: Path):
    stamp, none, some = tmp_path / "stamp", tmp_path / "none", tmp_path / "nvidia"
    (tmp_path / "nvidia0").touch()
    assert say(f"htr_operations {stamp} {none}") == (0, "cpu")  # a login node, the first time
    assert say(f"htr_operations {stamp} {some}") == (0, "NCCL")
    stamp.write_text("digest\ncpu on login1, 2026-11-26\n")
    assert say(f"htr_operations {stamp} {some}") == (0, "NCCL")  # a login node's build is told from a GPU node's
    stamp.write_text("digest\nNCCL on gpu7, 2026-11-26\n")
    assert say(f"htr_operations {stamp} {none}") == (0, "NCCL")  # and set-up on a login node leaves this one
    assert say(f"htr_operations {stamp} {some}", HOROVOD_GPU_OPERATIONS="cpu") == (0, "cpu")


def test_a_rank_on_a_gpu_says_where_its_horovod_was_built(tmp_path: Path):
    assert horovod_backend.built(tmp_path) == ""
    (tmp_path / ".htr-setup").write_text("digest\ncpu on login1, 2026-11-26\n")
    assert horovod_backend.built(tmp_path) == " (cpu on login1, 2026-11-26)"


def test_nvcc_is_found_where_modules_conda_and_the_system_have_it(tmp_path: Path):
    nvcc = program(tmp_path / "cuda" / "bin" / "nvcc")
    for environ in (
        {"PATH": f"{nvcc.parent}:/usr/bin:/bin"},
        {"CUDA_HOME": str(tmp_path / "cuda")},
        {"CONDA_PREFIX": str(tmp_path / "cuda")},
        {"HOROVOD_CUDA_HOME": str(tmp_path / "cuda")},
    ):
        assert say("htr_cuda_home", **environ) == (0, str(tmp_path / "cuda"))
    if not os.path.exists("/usr/local/cuda/bin/nvcc"):
        assert say("htr_cuda_home") == (0, "")


def test_condas_compilers_are_those_that_CXX_names(tmp_path: Path):
    for name in ("x86_64-conda-linux-gnu-c++", "cmake", "make"):
        program(tmp_path / name)
    bare = {"PATH": str(tmp_path)}
    assert say("htr_missing_tools", **bare, CXX="x86_64-conda-linux-gnu-c++") == (0, "")
    code, said = say("htr_missing_tools", **bare)
    assert code == 0 and said.startswith("g++ is missing: ") and "conda env create" in said


@pytest.mark.parametrize(("loads", "said"), [("true", ""), ("false", "module load cuda/99 failed")])
def test_modules_of_the_site_are_loaded_in_a_script_too(tmp_path: Path, loads: str, said: str):
    (tmp_path / "site.env").write_text('HTR_MODULES="cuda/99"\n')
    program(tmp_path / "init" / "bash", f"module() {{ {loads} && export LOADED=$2; }}\n")
    environ = {"HTR_SITE": str(tmp_path / "site.env"), "MODULESHOME": str(tmp_path)}
    code, found = say('htr_read_site . && htr_load_modules && echo "$LOADED"', **environ)
    assert (code, found) == ((0, "cuda/99") if loads == "true" else (1, found)) and said in found
    if not os.path.exists("/etc/profile.d/modules.sh") and not os.path.exists("/etc/profile.d/lmod.sh"):
        code, found = say("htr_read_site .; htr_load_modules", HTR_SITE=environ["HTR_SITE"])
        assert code == 1 and found == "HTR_MODULES=cuda/99, but this machine has no 'module'"


def test_a_wheel_that_would_be_built_otherwise_has_a_name_of_its_own():
    ask = "htr_wheel_key 0.28.1 2.8.0 cp311-x86_64 NCCL"
    code, name = say(ask)
    assert code == 0 and name.startswith("horovod-0.28.1-torch-2.8.0-cp311-x86_64-NCCL-") and say(ask) == (0, name)
    others = [
        say(f"{ask} | cat", **{variable: "80"})[1] for variable in ("HOROVOD_BUILD_CUDA_CC_LIST", "HOROVOD_CUDA_HOME")
    ]
    others.append(say(f'cat() {{ command cat "$@"; echo changed; }}; {ask}')[1])
    assert len({name, *others}) == 4
