"""Scans to shards, one core: certificates a second beside the bare limit of the same files, and beside a plain loop.

    python benchmarks/preprocess.py --certificates 200

The limit decodes every scan and encodes every line that is stored, nothing else. The peer is what one writes in an
hour: webdataset's ShardWriter, ORB features, a homography, ECC at quarter scale, the fields' boxes cut out as they are.
For ready line images the limit decodes and encodes each. Files are read before, so that no disk is measured. Runs are
interleaved and the best of each is taken. A table, then one line of JSON.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import webdataset

from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.sources import read_source
from htr.synth.simulate import simulate
from shards.plan import Settings, make_plan
from shards.write import write_shard

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
ALL = {"train": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=200)
    parser.add_argument("--lines", type=int, default=3000, help="ready line images")
    parser.add_argument("--severity", default="light", help="of the simulated scanner")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also: a worker's memory at 10 000 and 100 000 samples")
    parser.add_argument("--out", type=Path, help="a scratch folder, emptied first (default: a temporary one)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        args.out = args.out or Path(scratch)
        shutil.rmtree(args.out, ignore_errors=True)
        measure(args)


def measure(args: argparse.Namespace) -> None:
    table = simulate(args.out / "scans", args.certificates, 1, severity=args.severity, workers=2)
    source, images = read_source(table)
    scans = sorted({images / name for name in source["image"].to_pylist()})
    settings = Settings(unit="field", shares=ALL, rows=120)  # five certificates
    stored = stored_images(source, images, settings, args.out / "first")
    made = ready_lines(stored, args.lines, args.out / "lines")

    best = dict.fromkeys(("ours", "limit", "peer", "ours_lines", "limit_lines"), np.inf)
    for number in range(args.repeat):
        folder = args.out / f"run-{number}"
        best["ours"] = min(best["ours"], ours(source, images, settings, folder / "ours"))
        best["limit"] = min(best["limit"], limit(scans, stored))
        best["peer"] = min(best["peer"], plain_loop(scans, folder / "peer"))
        lines, at = read_source(made)
        best["ours_lines"] = min(best["ours_lines"], ours(lines, at, Settings(shares=ALL), folder / "lines"))
        best["limit_lines"] = min(best["limit_lines"], limit_of_lines(sorted(at.glob("*.jpg"))))
        shutil.rmtree(folder)
    walls = {count: [] for count in (1, 2)}
    for _ in range(args.repeat):
        for count, seconds in walls.items():
            seconds.append(workers(source, images, settings, args.out / f"w{count}", count))
    one, two = (min(seconds) for seconds in walls.values())

    count, lines = len(scans), len(list((args.out / "lines").glob("*.jpg")))
    figures = {
        "certificates_per_s": count / best["ours"],
        "ratio_to_limit": best["limit"] / best["ours"],
        "lines_ratio_to_limit": best["limit_lines"] / best["ours_lines"],
        "ratio_two_workers": one / two,
        "ratio_to_webdataset": best["peer"] / best["ours"],
    }
    print(f"{count} certificates, {len(stored)} stored images, {lines} ready lines; one core, best of {args.repeat}")
    for title, per, seconds in (
        ("scans to shards", count, best["ours"]),
        ("bare limit: decode scans, encode lines", count, best["limit"]),
        ("plain loop: ORB, ECC, ShardWriter", count, best["peer"]),
        ("ready lines to shards", lines, best["ours_lines"]),
        ("bare limit: decode and encode lines", lines, best["limit_lines"]),
    ):
        print(f"  {title:40s} {per / seconds:9.1f} a second {1000 * seconds / per:8.2f} ms each")
    print(f"  two workers on two cores: {one / two:.2f} times one")
    size = sum(path.stat().st_size for path in (args.out / "first").glob("*.tar"))
    print(f"  {size / count / 1000:.1f} kB of shards a certificate, {len(stored) / count:.1f} images")
    if args.memory:
        figures["memory_growth"] = memory(made, args.out)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def stored_images(source, images: Path, settings: Settings, folder: Path) -> list[np.ndarray]:
    """What is stored of the certificates, decoded again: what the limit encodes."""
    ours(source, images, settings, folder)
    found = []
    for tar in sorted(folder.glob("*.tar")):
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
            found.append(cv2.imdecode(np.frombuffer(sample["jpg"], np.uint8), cv2.IMREAD_GRAYSCALE))
    return found


def ready_lines(stored: list[np.ndarray], most: int, folder: Path) -> Path:
    """A table of line images, as a user has who cut them before: 64 to 110 px high, as wide as lines are."""
    folder.mkdir()
    wide = [image for image in stored if 60 <= image.shape[0] <= 200 and image.shape[1] > 300]
    with open(folder / "lines.csv", "w", encoding="utf-8") as file:
        file.write("image,text,certificate\n")
        for number in range(most):
            image = wide[number % len(wide)]
            size = (round(image.shape[1] * 72 / image.shape[0]), 72)
            name = f"{number:06d}.jpg"
            cv2.imwrite(str(folder / name), cv2.resize(image, size, interpolation=cv2.INTER_AREA), JPEG)
            file.write(f"{name},insuffisance cardiaque,c{number}\n")
    return folder / "lines.csv"


def ours(source, images: Path, settings: Settings, folder: Path) -> float:
    """Seconds from the plan to committed shards, in this process; a worker prepares its templates once."""
    plan = make_plan(folder, source, settings)
    forms = Forms(load_templates()) if settings.unit == "field" else None
    began = time.perf_counter()
    for number in range(len(plan.shards)):
        write_shard(plan, number, images, forms)
    return time.perf_counter() - began


def limit(scans: list[Path], stored: list[np.ndarray]) -> float:
    contents = [path.read_bytes() for path in scans]
    began = time.perf_counter()
    for content in contents:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    for image in stored:
        cv2.imencode(".jpg", image, JPEG)
    return time.perf_counter() - began


def limit_of_lines(paths: list[Path]) -> float:
    contents = [path.read_bytes() for path in paths]
    began = time.perf_counter()
    for content in contents:
        cv2.imencode(".jpg", cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE), JPEG)
    return time.perf_counter() - began


def plain_loop(scans: list[Path], folder: Path) -> float:
    """One template only, no lines, no blank fields told apart, nothing checked, nothing committed."""
    folder.mkdir(parents=True)
    template = load_templates()[0]
    small = cv2.resize(template.picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    orb, matcher = cv2.ORB_create(500), cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
    points, features = orb.detectAndCompute(small, None)
    quarter = np.diag([0.25, 0.25, 1.0])
    ending = (cv2.TERM_CRITERIA_COUNT, 15, 0)
    height, width = template.picture.shape
    began = time.perf_counter()
    with webdataset.ShardWriter(str(folder / "%05d.tar"), verbose=0) as writer:
        for number, path in enumerate(scans):
            scan = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            reduced = cv2.resize(scan, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            found, described = orb.detectAndCompute(reduced, None)
            matches = matcher.match(features, described)
            here = np.float32([points[match.queryIdx].pt for match in matches])
            there = np.float32([found[match.trainIdx].pt for match in matches])
            matrix, _ = cv2.findHomography(here, there, cv2.RANSAC, 3.0)
            with contextlib.suppress(cv2.error):  # it does not converge on some; what one writes in an hour goes on
                _, matrix = cv2.findTransformECC(small, reduced, np.float32(matrix), cv2.MOTION_HOMOGRAPHY, ending)
            full = np.linalg.inv(quarter) @ matrix @ quarter
            upright = cv2.warpPerspective(scan, full, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            for field in template.fields:
                x, y, w, h = field.box
                jpeg = cv2.imencode(".jpg", upright[y : y + h, x : x + w], JPEG)[1].tobytes()
                key = f"{number:06d}_{field.name}"
                writer.write({"__key__": key, "jpg": jpeg, "txt": "text", "json": {"field": field.name}})
    return time.perf_counter() - began


def workers(source, images: Path, settings: Settings, folder: Path, count: int) -> float:
    """Wall seconds of `count` processes that share the shards; each has read a scan before the clock starts."""
    shutil.rmtree(folder, ignore_errors=True)
    make_plan(folder, source, settings)
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(count + 1)
    taken = context.Value("i", 0)
    children = [context.Process(target=work, args=(folder, images, taken, gate)) for _ in range(count)]
    for child in children:
        child.start()
    gate.wait()
    began = time.perf_counter()
    gate.wait()  # their work is done; that a process ends is no work
    seconds = time.perf_counter() - began
    for child in children:
        child.join()
    assert all(child.exitcode == 0 for child in children)
    return seconds


def work(folder: Path, images: Path, taken, gate) -> None:
    """Take the next shard until none is left, as the processes of a task do."""
    from shards.plan import read_plan
    from shards.samples import make_samples

    cv2.setNumThreads(1)
    plan, forms = read_plan(folder), Forms(load_templates())
    list(make_samples(plan.rows(0)[:24], images, plan.settings, forms))  # what is prepared once, at the first scan
    gate.wait()
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(plan.shards):
            break
        write_shard(plan, number, images, forms)
    gate.wait()


def memory(made: Path, out: Path) -> float:
    """A worker's peak after 100 000 samples over its peak after 10 000 (the same images, named again and again)."""
    peaks = []
    for rows in (10_000, 100_000):
        names = sorted(path.name for path in made.parent.glob("*.jpg"))
        csv = made.parent / f"many-{rows}.csv"
        with open(csv, "w", encoding="utf-8") as file:
            file.write("image,text,certificate\n")
            file.writelines(f"{names[n % len(names)]},insuffisance cardiaque,c{n}\n" for n in range(rows))
        source, images = read_source(csv)
        make_plan(out / f"many-{rows}", source, Settings(shares=ALL))
        code = (
            "import sys,cv2;from pathlib import Path;from shards.plan import read_plan;"
            "from shards.write import write_shard;cv2.setNumThreads(1);p=read_plan(Path(sys.argv[1]));"
            "[write_shard(p,n,Path(sys.argv[2])) for n in range(len(p.shards))];"
            # not ru_maxrss: a child begins with the peak of the process that started it
            "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
        )
        command = [sys.executable, "-c", code, str(out / f"many-{rows}"), str(images)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
        print(f"  a worker's peak memory after {rows} samples: {peaks[-1]:.0f} MiB")
    return peaks[1] / peaks[0]


if __name__ == "__main__":
    main()
