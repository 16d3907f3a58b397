"""Scans of the project's forms with scribbles in their fields, and how they are registered, in any process."""

import cv2
import numpy as np

from htr.forms.keypoints import corners
from htr.forms.registration import Forms
from htr.synth.draw_forms import draw
from htr.synth.scanner import SEVERITIES, scan

NAMES = "adult-2018", "adult-2024", "neonatal-2018"


def scanned(name, seed, dpi=200, severity="hard"):
    """A scan with scribbles in its fields, and the matrix from its form."""
    template = draw(name)
    return scanned_picture(template.picture, template.fields, seed, dpi, severity)


def scanned_picture(picture, fields, seed, dpi=200, severity="hard"):
    """As `scanned`, of any printed form (H, W) uint8."""
    rng, ink = np.random.default_rng(seed), np.zeros_like(picture)
    for field in fields:
        if field.kind == "text":
            x, y, w, h = field.box
            steps = np.array([x, y]) + rng.normal((6, 0), (6, 14), (w // 8, 2)).cumsum(axis=0)
            steps[:, 1] = y + h / 2 + 0.6 * h * np.sin(steps[:, 1] / 17)
            cv2.polylines(ink, [np.rint(steps).astype(np.int32)], False, 230, 3)
    result = scan(picture, ink, SEVERITIES[severity], rng, dpi)
    return result.image, result.matrix


def farthest(registration, matrix, shape):
    """The error of the field corner that is off the most, of those on the scan (rows, columns); px of the scan."""
    places = np.concatenate([corners(field.box) for field in registration.template.fields])
    truth = cv2.perspectiveTransform(places[None], matrix)[0]
    inside = ((truth >= 0) & (truth < shape[::-1])).all(axis=1)
    assert inside.any()
    return np.linalg.norm(truth - registration.places(places), axis=1)[inside].max()


def matrices(seeds):
    cv2.setNumThreads(1)
    forms = Forms([draw(name) for name in NAMES])
    return [forms.register(scanned(NAMES[seed % 3], seed)[0]).matrix for seed in seeds]
