"""Every verb on a real Slurm cluster that binds tasks to CPUs: what it takes is what its task was given, by the mask
and by Slurm's variables: threads of torch, OpenCV and Arrow, and processes that it starts. Needs root."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import evaluated
import pytest
from bed import Cluster

pytestmark = pytest.mark.slurm
# Every python of a task notes here the processes that it starts, and the verb's own at its end what it has taken
NOTE = """
import atexit, json, os, sys

words = sys.orig_argv
verb = words[1:3] == ["-m", "jobs"] and "--print-folder" not in words or "submitit.core._submit" in words
path = os.path.join(os.environ["THREADS_TO"], os.environ.get("SLURM_PROCID", "outside"))

def note(**said):
    with open(path, "a") as file:
        file.write(json.dumps(said) + "\\n")

def hook(event, given):
    if event == "subprocess.Popen" and "shards.worker" in given[1]:
        note(worker="of a loader", threads=given[3]["OMP_NUM_THREADS"])
    if event == "os.fork" and any("forkserver" in word for word in words):
        note(worker="of a pool")

def taken():
    ask = {"torch": "get_num_threads", "cv2": "getNumThreads", "pyarrow": "cpu_count"}
    threads = {name: getattr(sys.modules[name], call)() for name, call in ask.items() if name in sys.modules}
    slurm = {name: value for name, value in os.environ.items() if name.startswith("SLURM")}
    note(mask=sorted(os.sched_getaffinity(0)), threads=threads, slurm=slurm)

sys.addaudithook(hook)
if verb:
    atexit.register(taken)
"""
TRAIN = ["--size", "tiny", "--batch", "8", "--warmup", "2", "--amp", "off", "--steps", "2", "--device", "cpu"]
AFTER = ("audit",)  # it reads what evaluate leaves
LIBRARIES = {"preprocess": {"cv2", "pyarrow"}, "calibrate": {"pyarrow"}, "audit": {"pyarrow"}}
ALL = {"torch", "cv2", "pyarrow"}


@pytest.fixture(scope="module")
def verbs(tmp_path_factory, cluster: Cluster, dataset, source, trained, draw) -> dict:
    """name -> (name of what is asked) -> the words of the command."""
    folder = tmp_path_factory.mktemp("verbs")
    (folder / "images").mkdir()
    for number in range(24):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), draw(f"grippe {number}"))
    keyed = evaluated.run(folder / "keyed", {"dev": 60, "calibration": 60, "test": 60}, easy=1.0)
    model = shutil.copytree(trained, folder / "run", symlinks=True)
    read, parts = ["--run", model, "--device", "cpu"], ("--fit", "dev", "--choose", "calibration", "--judge", "test")
    return {
        "preprocess": lambda name: [source, "--out", folder / f"data-{name}", "--rows", 7],
        "train": lambda name: [dataset.folder, "--run", folder / f"run-{name}", *TRAIN],
        "evaluate": lambda name: [dataset.folder, *read, "--split", "train", "--name", name],
        "tune": lambda name: [*read, "--order", 4, "--split", "train", "--most", 8],
        "align": lambda name: [dataset.folder, *read, "--to", "words", "--split", "train", "--name", name,
                               "--out", dataset.folder.parent / f"words-{name}.parquet"],
        "transcribe": lambda name: [folder / "images", "--model", model, "--out", folder / f"{name}.csv",
                                    "--chunk", 4, "--device", "cpu"],
        "calibrate": lambda name: ["--run", keyed, *parts, "--alpha", 0.2, "--by", "unit", "--name", name],
        "audit": lambda name: ["--run", model, "--evaluation", name,
                               "--out", dataset.folder.parent / f"audit-{name}.csv"],
    }  # fmt: skip


WAYS = {  # options of srun, CPUs of a task (None: as many cores as it was given), verbs
    "bound": (["--cpus-per-task=1", "--cpu-bind=cores"], 1, ()),
    "two CPUs": (["--cpus-per-task=2", "--cpu-bind=cores"], 2, ("preprocess", "train", "transcribe")),
    "not bound": (["--cpus-per-task=1", "--cpu-bind=none"], 1, ("preprocess", "train")),
    "nomultithread": (["--cpus-per-task=2", "--hint=nomultithread"], None, ("train",)),
}
SAID = {  # what a verb itself says of the CPUs that it takes, all tasks together
    "evaluate": ("evaluation/{}/timing/*.json", lambda path: json.loads(path.read_text())["cores"]),
    "train": ("provenance.json", lambda path: json.loads(path.read_text())["starts"][0]["cpus"]),
}
PAIRED = ("preprocess", "train")  # of these two tasks share a node where each has one CPU; the others are alone there


@pytest.mark.parametrize("way", WAYS)
def test_each_verb_takes_the_cpus_of_its_task(cluster: Cluster, verbs, tmp_path: Path, way):
    options, cpus, some = WAYS[way]
    (tmp_path / "sitecustomize.py").write_text(NOTE)

    def run(verb: str) -> None:
        noted, tasks = tmp_path / verb, 2 if cpus == 1 and verb in PAIRED else 1
        noted.mkdir()
        srun = ["srun", "--nodes=1", f"--ntasks={tasks}", *options, sys.executable, "-m", "jobs"]
        name = way.replace(" ", "-")
        words = verbs[verb](name)
        cluster.run(*srun, verb, *words, **noting(tmp_path, noted))
        for task in range(tasks):
            *started, taken = read(noted / str(task))
            given = cpus or min(cores(taken["mask"]), int(taken["slurm"]["SLURM_CPUS_PER_TASK"]))
            if way == "nomultithread":
                # sbatch sets the first, srun the second
                assert taken["slurm"].get("SLURM_HINT") == way or taken["slurm"]["SLURM_THREADS_PER_CORE"] == "1"
            else:
                # one that is not bound sees the other's CPU, too
                assert len(taken["mask"]) == cpus or (way == "not bound" and len(taken["mask"]) > cpus), taken
                assert taken["slurm"]["SLURM_CPUS_PER_TASK"] == str(cpus)
            assert set(taken["threads"]) >= LIBRARIES.get(verb, ALL), (verb, taken["threads"])
            assert set(taken["threads"].values()) == {given}, (verb, way, taken["threads"])
            assert started == workers(verb, given), (verb, way, started)
        if verb in SAID:
            path, cpus_of = SAID[verb]
            run = words[words.index("--run") + 1]
            assert {cpus_of(path) for path in run.glob(path.format(name))} == {given * tasks}, (verb, way)

    each_at_once(run, [verb for verb in some or verbs if verb not in AFTER])
    each_at_once(run, [verb for verb in some or verbs if verb in AFTER])


def test_a_training_through_submitit_takes_what_one_through_sbatch_takes(cluster: Cluster, dataset, tmp_path: Path):
    """As many threads of the same masks, so that it is as fast."""
    (tmp_path / "sitecustomize.py").write_text(NOTE)

    def run(way: str) -> None:
        noted, train = tmp_path / way, [dataset.folder, "--run", tmp_path / f"run-{way}", *TRAIN]
        noted.mkdir()
        environ = noting(tmp_path, noted)
        if way == "sbatch":
            asked = ["--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=2"]
            cluster.sbatch(tmp_path / "log", *asked, "slurm/train.sh", *train, **environ)
        else:
            asked = ["--nodes", 1, "--tasks-per-node", 1, "--cpus-per-task", 2, "--time", "10:00", "--wait"]
            cluster.run(sys.executable, "-m", "jobs", "submit", "train", *asked, *train, **environ)

    each_at_once(run, ("sbatch", "submitit"))
    (*ours, one), (*theirs, other) = (read(tmp_path / way / "0") for way in ("sbatch", "submitit"))
    assert ours == theirs == workers("train", 2)
    assert one["threads"] == other["threads"] and set(one["threads"].values()) == {2}
    assert len(one["mask"]) == len(other["mask"]) == 2
    assert one["slurm"]["SLURM_CPUS_PER_TASK"] == other["slurm"]["SLURM_CPUS_PER_TASK"] == "2"


def each_at_once(run: Callable[[str], None], names: Iterable[str]) -> None:
    """On as many nodes as there are."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, names))


def noting(folder: Path, noted: Path) -> dict[str, str]:
    """The environment in which tasks note what they take; what sets threads for the cluster's other tests is off.
    `folder` holds NOTE."""
    path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    chose = "OMP_NUM_THREADS OPENCV_FOR_THREADS_NUM"
    return {"PYTHONPATH": path, "THREADS_TO": str(noted), "HTR_CHOSE_THREADS": chose}


def read(path: Path) -> list[dict]:
    """What a task started, then what it took itself."""
    noted = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(noted, key=lambda said: "mask" in said)


def cores(mask: list[int]) -> int:
    return len({Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list").read_text() for cpu in mask})


def workers(verb: str, cpus: int) -> list[dict]:
    """What it starts beside itself: a loader takes all CPUs but its own, one at least; a pool takes all of them."""
    if verb == "train":
        return [{"worker": "of a loader", "threads": "1"}] * max(cpus - 1, 1)
    if verb == "preprocess" or (verb == "transcribe" and cpus > 1):  # a lone one reads in its own process
        return [{"worker": "of a pool"}] * cpus
    return []  # where the CPUs compute, a thread of the process decodes
