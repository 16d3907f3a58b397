"""What several test files share: lines drawn with OpenCV, and a small data set made of them."""

import csv
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bed import Cluster, bring_up, take_down
from browser import Browser, find
from hypothesis import HealthCheck, settings

from htr.charset import Charset
from htr.io.sources import read_source
from htr.models.registry import create
from htr.reader import files_of
from jobs.cli.command_line import main
from shards.index import Index, merge
from shards.plan import Settings, make_plan
from shards.reading import Samples
from shards.write import write_shard

SHARES = {"train": 0.6, "dev": 0.1, "val": 0.1, "calibration": 0.1, "test": 0.1}
SMALL = Settings(rows=7, shares=SHARES, salt="2", encoding="png")  # a salt by which no split is empty
WORDS = ("grippe", "AVC", "choc septique", "cancer du sein", "chute", "infarctus", "IRC", "embolie pulmonaire")


# the same examples in every run, however slow the machine is; --hypothesis-profile=default draws others
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

SLURM_TIMEOUT = 900  # seconds of a test on the cluster: jobs wait for nodes, and for Slurm to notice that one is off
SKIPS = (  # why a test may be left out where CI=true; any other reason makes the run fail
    "HTR_SHARED",  # real handwriting lies on no machine of CI
    "make test-faults runs it",
    "no /dev/fuse here",  # the kernel lets nobody make a file system that stalls
)
faults: list[tuple[str, float, str, object, float | None]] = []  # what `make test-faults` prints as a table
skipped: list[str] = []  # in CI, for another reason: "test: reason"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slurm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLURM_TIMEOUT))


def note_skip(name: str, report) -> None:
    """What is left out must not go unseen where nobody looks at it: a missing package, no mount, no browser."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in SKIPS):
            skipped.append(f"{name}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_skip(report.nodeid, report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note_skip(report.nodeid, report)  # of a whole file, as importorskip leaves it out


def pytest_sessionfinish(session: pytest.Session) -> None:
    if skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    if faults:
        terminalreporter.section("faults")
        heads = f"{'limit s':>9}{'seconds':>9}{'ratio':>7}  {'steps lost':<11}"
        terminalreporter.write_line(f"{'fault':<56}{heads}blamed")
        for kind, seconds, blamed, lost, limit in faults:
            bound, ratio = (f"{limit:g}", f"{seconds / limit:.2f}") if limit else ("-", "-")
            terminalreporter.write_line(f"{kind:<56}{bound:>9}{seconds:>9.1f}{ratio:>7}  {lost!s:<11}{blamed}")
    for line in skipped:
        terminalreporter.write_line(f"SKIPPED IN CI, not on the list of tests/conftest.py: {line}", red=True)


@pytest.fixture
def one_thread():
    """Sums in a fixed order, and no fight for cores with the tests of others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """draw(text, height=40): black text on gray paper, as wide as it needs."""

    def line(text: str, height: int = 40) -> np.ndarray:
        scale = height / 40
        (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
        image = np.full((height, width + 12), 225, np.uint8)
        cv2.putText(image, text, (6, int(height * 0.7)), cv2.FONT_HERSHEY_SIMPLEX, scale, 30, 2, cv2.LINE_AA)
        return image

    return line


@pytest.fixture(scope="session")
def write_table() -> Callable[[Path, list[dict]], Path]:
    """write_table(path, rows): the rows as a CSV; rows may have different columns."""

    def write(path: Path, rows: list[dict]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
            table.writeheader()
            table.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def source(tmp_path_factory, draw, write_table) -> Path:
    """A table of 20 certificates with three line images each."""
    folder, rows = tmp_path_factory.mktemp("source"), []
    for certificate in range(20):
        for line, field in enumerate(("Ia", "Ib", "II")):
            text = f"{WORDS[(3 * certificate + line) % len(WORDS)]} {certificate}"
            name = f"c{certificate:02d}-{field}.png"
            cv2.imwrite(str(folder / name), draw(text))
            rows.append({"image": name, "text": text, "certificate": f"c.{certificate}", "field": field, "year": 2020})
    return write_table(folder / "lines.csv", rows)


@pytest.fixture(scope="session")
def build() -> Callable[..., Index]:
    """build(folder, source, settings=SMALL): preprocess the table into the folder, as one worker does."""

    def preprocess(folder: Path, source: Path, settings: Settings = SMALL) -> Index:
        table, images = read_source(source)
        plan = make_plan(folder, table, settings)
        for number in range(len(plan.shards)):
            write_shard(plan, number, images)
        return merge(plan)

    return preprocess


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, source, build) -> Index:
    """The source, preprocessed. Shared by all tests: one that changes files works on a copy."""
    return build(tmp_path_factory.mktemp("dataset") / "lines", source)


@pytest.fixture
def samples(dataset) -> Iterator[Samples]:
    """Its split train, to be read."""
    opened = Samples(dataset.folder, dataset.samples("train"))
    yield opened
    opened.close()


@pytest.fixture
def commits(monkeypatch) -> list[str]:
    """The names that files are given from now on by a link or a rename. Fails where one was not fsynced before, with
    all that it holds: after a crash of the node such a name may stand over nothing."""
    synced: dict[int, tuple[int, int]] = {}  # inode -> size and time of change when it was synced
    found: list[str] = []

    def fsync(handle: int, real=os.fsync) -> None:
        real(handle)
        state = os.fstat(handle)
        synced[state.st_ino] = state.st_size, state.st_mtime_ns

    def checked(real: Callable) -> Callable:
        def name(attempt, path, **more) -> None:
            state = os.lstat(attempt)
            if stat.S_ISREG(state.st_mode):
                assert synced.get(state.st_ino) == (state.st_size, state.st_mtime_ns), f"{Path(path).name}: no fsync"
                found.append(Path(path).name)
            real(attempt, path, **more)

        return name

    monkeypatch.setattr(os, "fsync", fsync)
    for call in ("link", "replace"):
        monkeypatch.setattr(os, call, checked(getattr(os, call)))
    return found


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory) -> Path:
    """A run of three steps on it. Shared: one that writes into a run works on a copy."""
    folder = tmp_path_factory.mktemp("runs") / "ctc"
    options = ["--size", "tiny", "--steps", "3", "--batch", "8", "--device", "cpu"]
    assert main(["train", str(dataset.folder), "--run", str(folder), *options]) == 0
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Brought up for the tests marked slurm; one that was up before stays up."""
    made, was_up = bring_up()
    yield made
    if not was_up:
        take_down()


@pytest.fixture
def fault() -> Callable[..., None]:
    """fault(kind, seconds, blamed, lost, limit=None): note a fault, the seconds until the job had ended or was queued
    again, who was blamed, steps lost, and the seconds of the watchdog's limit where that one ended it."""

    def note(kind: str, seconds: float, blamed: str, lost: object, limit: float | None = None) -> None:
        faults.append((kind, seconds, blamed, lost, limit))

    return note


@pytest.fixture(scope="session")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    """Installed first where it is missing and root is there; elsewhere its tests are skipped, but never by CI."""
    if find() is None:
        script = Path(__file__).with_name("browser.sh")
        done = subprocess.run([script], capture_output=True, text=True, timeout=500)
        if done.returncode and os.geteuid() and not os.environ.get("CI"):
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stderr
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """A run's folder with a model that was never trained: what it reads depends on the image."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(4)
    made, charset = create("ctc", "tiny", 12), Charset("abcdefghijkl")
    (folder / "model").mkdir()
    for name, content in files_of(made, charset, "ctc", "tiny", 7).items():
        (folder / "model" / name).write_bytes(content)
    return folder
