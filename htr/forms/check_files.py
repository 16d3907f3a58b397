"""Check many scans against templates, in several processes. Each reads and registers its own scans, one at a time."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from htr.forms.form_check import Checked, check_scan
from htr.forms.registration import Forms
from htr.forms.template import Template
from htr.io.image_files import RejectedInput, decode
from htr.worker_pool import each_in_order

PICTURE_SIDE_PX = 700  # longer side of the picture of a rejected scan
MIN_SCANS_PER_WORKER = 24  # scans that are checked in the time that a process takes to start
MAX_WORKERS = 8

forms: Forms | None = None  # of a process of the pool


def begin(templates: Sequence[Template]) -> None:
    """Prepare the forms of this process, once."""
    global forms
    cv2.setNumThreads(1)
    forms = Forms(templates)


def check_file(path: Path) -> tuple[Checked, np.ndarray | None] | None:
    """The result of a scan, and a small picture of it if it was rejected; None: no image that can be read."""
    try:
        scan = decode(path.read_bytes())
    except RejectedInput:
        return None
    result = check_scan(forms, scan)
    if result.form:
        return result, None
    scale = PICTURE_SIDE_PX / max(scan.shape)
    return result, cv2.resize(scan, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else scan


def check_files(
    templates: Sequence[Template], paths: Sequence[Path], advance: Callable[[int], object] = lambda _: None
) -> list[tuple[Checked, np.ndarray | None] | None]:
    """`check_file` of each path, in their order. `advance` is called with 1 after each."""
    workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS, len(paths) // MIN_SCANS_PER_WORKER)
    if workers < 2:
        begin(templates)
    found = []
    for result in each_in_order(check_file, paths, workers, partial(begin, list(templates)), chunksize=4):
        found.append(result)
        advance(1)
    return found
