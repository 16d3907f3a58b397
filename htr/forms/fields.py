"""Field extraction from a registered scan: the scan is deskewed, and each field is cut out with a margin.

upright = DeskewedScan(scan, forms.register(scan))
crop = upright.cut(field)               # crop.image, crop.form, crop.box, crop.pitch
crop.on_scan(line_box)                  # [x, y, w, h] on the scan, for the sample's JSON
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, floor

import cv2
import numpy as np

from htr.forms.keypoints import apply, corners
from htr.forms.registration import Registration
from htr.forms.template import Field, Template
from htr.lines.form_dropout import PRINT_TOLERANCE_PX, PrintedForm, factor_of
from htr.lines.normalise import RejectedInput
from htr.lines.rulings import bands_of
from htr.lines.segmentation import flatten_background

MIN_PITCH_PX = 96.0  # of a stored line; smaller ones are enlarged
MARGIN_ABOVE_PITCHES, MARGIN_BESIDE_PITCHES = 0.5, 1 / 3  # of a text field: people write over its edges
TICK_MARGIN_RATIO = 0.35  # of a tick field, as a share of its height
PRINT_DARKNESS = 64  # of 255: least darkness of print in a template's picture
COARSE_PX = 4  # px of the template's resolution to one of the coarse page on which bare fields are recognised
COARSE_INK_DARKNESS = 20  # of 255: least darkness of a coarse pixel that may be ink
MAX_BARE_COARSE_PX = 2  # most coarse pixels of that darkness in a bare field


@dataclass(frozen=True, eq=False)
class FieldImage:
    """A field that was cut out of a scan."""

    image: np.ndarray  # (H, W) uint8, upright, background flattened to about 255
    box: tuple[int, int, int, int]  # x, y, w, h of the field proper, in pixels of the crop
    pitch: float  # height of a line of writing, in pixels of the crop
    to_scan: np.ndarray  # (2, 3) float64: pixels of the crop to pixels of the scan
    page: tuple[int, int]  # rows, columns of the scan
    upright: "DeskewedScan | None" = None  # the deskewed scan; None where there is no template
    place: tuple[int, int] = (0, 0)  # x, y of the crop on the deskewed scan
    rulings: tuple[tuple[int, int], ...] = ()  # first and last row of the template's level rulings in the crop

    @property
    def raw(self) -> np.ndarray:
        """(H, W) uint8, without flattening of the background; flattened where there is no template."""
        (left, top), (height, width) = self.place, self.image.shape
        return self.image if self.upright is None else self.upright.raw[top : top + height, left : left + width]

    @property
    def printed(self) -> np.ndarray | None:
        """(H, W) uint8, > 0 where the template has print; None where there is no template."""
        return None if self.upright is None else self.upright.printed(self.place, self.image.shape)

    @property
    def form(self) -> PrintedForm | None:
        """The print in the form that line segmentation takes; None where there is no template."""
        if self.upright is None:
            return None
        factor = factor_of(self.pitch)
        comb = self.upright.printed(self.place, self.image.shape, step=factor, beside=PRINT_TOLERANCE_PX)
        return PrintedForm(comb, list(self.rulings))

    def on_scan(self, box: tuple[int, int, int, int]) -> list[int]:
        """A box x, y, w, h of the crop -> [x, y, w, h], the upright box around it on the scan, clipped to the scan."""
        # edges of a box lie between pixels, half a pixel before their centres; 0.001 allows for the rounding of floats
        left, top = box[0] - 0.499, box[1] - 0.499
        right, bottom = left + box[2] - 0.002, top + box[3] - 0.002
        ends = []
        for (across, down, start), size in zip(self.to_scan.tolist(), self.page[::-1], strict=True):
            low = min(across * left, across * right) + min(down * top, down * bottom) + start + 0.5
            high = max(across * left, across * right) + max(down * top, down * bottom) + start + 0.5
            first = min(max(floor(low), 0), size - 1)
            ends.append((first, min(max(ceil(high), first + 1), size)))
        (x, to_x), (y, to_y) = ends
        return [x, y, to_x - x, to_y - y]


class DeskewedScan:
    """A scan (H, W) uint8, deskewed by its registration, at its own resolution. It covers the fields; with `whole` the
    form.

    It is deskewed and flattened once for all fields: twenty overlapping pieces would take three times as long.
    """

    def __init__(self, scan: np.ndarray, registration: Registration, whole: bool = False):
        template, self.page, self.warp = registration.template, scan.shape, registration.warp
        scan, matrix = registration.flat(scan)
        places = Places.of(template)
        angle = np.arctan2(matrix[1, 0], matrix[0, 0])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        upright = turn.T @ matrix[:2]  # pixels of the template to deskewed pixels, with the origin of the scan
        height, width = template.picture.shape
        outline = corners((0, 0, width, height)) if whole else places.outlines.reshape(-1, 2)
        first, last = extent(apply(upright, outline))
        self.size = (last - first).tolist()
        self.template = template
        self.scale = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))  # px of the scan to one of the template
        self.to_scan = np.vstack([np.column_stack([turn, turn @ first]), [0, 0, 1]])
        self.from_template = np.linalg.inv(self.to_scan) @ matrix
        self.to_template = np.linalg.inv(self.from_template)
        self.raw = warped(scan, self.to_scan, self.size)
        self.image = flatten_background(self.raw)
        outlines, boxes = apply(self.from_template, places.outlines), apply(self.from_template, places.boxes)
        first = np.maximum(np.floor(outlines.min(axis=1)), 0)
        self.outer = np.hstack([first, np.ceil(outlines.max(axis=1))]).astype(int).tolist()
        self.inner = np.rint(np.hstack([boxes.min(axis=1), boxes.max(axis=1)])).astype(int).tolist()
        self.to_flat = matrix  # pixels of the template to those of the flat scan (Registration.flat)
        self.on_page = on_page(self.placed(places.boxes), self.page).tolist()

    def placed(self, outlines: np.ndarray) -> np.ndarray:
        """Outlines (n, 4, 2) on the template -> on the original scan."""
        if self.warp is None:
            return apply(self.to_flat, outlines)
        return self.warp.places(outlines.reshape(-1, 2)).reshape(outlines.shape)

    def way_to_scan(self, left: int, top: int, middle: tuple[float, float]) -> np.ndarray:
        """(2, 3) from pixels of a crop at (left, top) to those of the original scan; on a warped one, that at its
        middle.
        """
        to_flat = self.to_scan[:2].copy()
        to_flat[:, 2] += to_flat[:, :2] @ (left, top)
        if self.warp is None:
            return to_flat
        to_template = np.linalg.inv(self.to_flat) @ np.vstack([to_flat, [0, 0, 1]])
        near = self.warp.linear(apply(to_template, np.array([middle]))[0])
        return near @ to_template

    def is_bare(self, field: Field) -> bool:
        """Whether a text field has nothing dark but the form's print.

        That is so for most fields. It takes a thousandth of the time of line segmentation, which tells specks, stains
        and writing that shines through from writing.
        """
        number = Places.of(self.template).numbers[field.name]
        left, top, right, bottom = self.inner[number]
        near = 0.1 * Places.of(self.template).pitches[number] * self.scale
        factor, dark = self.dark
        height, width = np.subtract(dark.shape, 1).tolist()
        x, to_x = (min(max(int(v / factor), 0), width) for v in (left, right + factor))
        y, to_y = (min(max(int(v / factor), 0), height) for v in (top - near, bottom + near + factor))
        return int(dark[to_y, to_x] - dark[to_y, x] - dark[y, to_x] + dark[y, x]) <= MAX_BARE_COARSE_PX

    @cached_property
    def dark(self) -> tuple[int, np.ndarray]:
        """-> px to one coarse px; (h + 1, w + 1) integral image of the coarse page's dark pixels that are not print."""
        factor = max(round(COARSE_PX * self.scale), 1)
        height, width = (side // factor for side in self.image.shape)
        whole = self.image[: height * factor, : width * factor]
        small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
        middle = [[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]]
        to_coarse = np.diag([1 / COARSE_PX, 1 / COARSE_PX, 1]) @ self.to_template @ middle
        printed = cv2.warpAffine(
            coarse_print(self.template), to_coarse[:2], (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        )
        dark = cv2.bitwise_and(cv2.compare(small, 255 - COARSE_INK_DARKNESS, cv2.CMP_LT), cv2.bitwise_not(printed))
        return factor, cv2.integral(cv2.min(dark, 1))

    def cut(self, field: Field) -> FieldImage:
        """The field with a margin. Raises RejectedInput where less than half of the field's box lies on the scan."""
        places = Places.of(self.template)
        number = places.numbers[field.name]
        if not self.on_page[number]:
            raise RejectedInput("field lies outside the scan")
        left, top, right, bottom = self.outer[number]
        x, y, to_x, to_y = self.inner[number]
        to_scan = self.way_to_scan(left, top, ((x + to_x) / 2 - left, (y + to_y) / 2 - top))
        _, down, start = self.from_template[1].tolist()  # level lines of the template are level here
        rulings = tuple(tuple(round(down * row + start) - top for row in band) for band in places.bands[number])
        return FieldImage(
            image=self.image[top:bottom, left:right],
            box=(x - left, y - top, to_x - x, to_y - y),
            pitch=places.pitches[number] * self.scale,
            to_scan=to_scan,
            page=self.page,
            upright=self,
            place=(left, top),
            rulings=rulings,
        )

    def printed(self, place: tuple[int, int], shape: tuple[int, int], step: int = 1, beside: int = 0) -> np.ndarray:
        """The template's print in a piece of this shape (H, W) at x, y -> (H, W / step) uint8, > 0 on print.

        Of each `step` columns the middle one is taken. `beside`: px beside the print that count as print.
        """
        thick = max(round(1 / self.scale), 1)  # nearest neighbours would miss thinner print
        wide = thick + 2 * round(beside / self.scale)
        (across, skew, left), (_, down, top), _ = self.to_template.tolist()
        x, y, width = place[0] + step // 2, place[1] + np.arange(shape[0]), max(shape[1] // step, 1)
        # level lines are level here, and upright ones lean less within a field than print may be off its place
        left += skew * (place[1] + shape[0] / 2)
        columns = np.rint(across * (x + step * np.arange(width)) + left).astype(int)
        rows = np.rint(down * y + top).astype(int)
        return print_of(self.template, wide, thick).take(rows, 0, mode="clip").take(columns, 1, mode="clip")


@dataclass(frozen=True, eq=False)
class Places:
    """The fields of a template and their margins, in pixels of its picture."""

    numbers: dict[str, int]  # index of each field by its name
    outlines: np.ndarray  # (n, 4, 2) float64, corners of the fields with their margins
    boxes: np.ndarray  # (n, 4, 2) float64, corners of the fields
    pitches: list[float]
    bands: list[list[tuple[int, int]]]  # first and last row of each field's level rulings

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, template: Template) -> "Places":
        printed, outlines, pitches, bands = print_of(template), [], [], []
        for field in template.fields:
            text = field.kind == "text"
            pitch = field.pitch if text else field.box[3]
            margins = (
                (MARGIN_BESIDE_PITCHES * pitch, MARGIN_ABOVE_PITCHES * pitch)
                if text
                else (TICK_MARGIN_RATIO * pitch, TICK_MARGIN_RATIO * pitch)
            )
            outlines.append(corners(widened(field.box, margins, printed.shape)))
            (left, top), (right, bottom) = (edge.tolist() for edge in extent(outlines[-1]))
            rows = bands_of(np.ascontiguousarray(printed[top:bottom, left:right])) if text else []
            pitches.append(float(pitch))
            bands.append([(top + first, top + last) for first, last in rows])
        numbers = {field.name: number for number, field in enumerate(template.fields)}
        boxes = np.array([corners(field.box) for field in template.fields])
        return cls(numbers, np.array(outlines), boxes, pitches, bands)


def enlarging(pitch: float) -> float:
    """The factor, 1 or more, by which a line of this pitch is enlarged when stored: JPEG blurs small writing."""
    return max(MIN_PITCH_PX / pitch, 1.0)


def enlarged(gray: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1.0:
        return gray
    size = (round(gray.shape[1] * factor), round(gray.shape[0] * factor))
    return cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)


def widened(
    box: tuple[int, int, int, int], margins: tuple[float, float], page: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The box with margins (left and right, above and below), clipped to the page (rows, columns)."""
    x, y, w, h = box
    left, top = max(x - margins[0], 0), max(y - margins[1], 0)
    return left, top, min(x + w + margins[0], page[1]) - left, min(y + h + margins[1], page[0]) - top


def extent(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upright box around points (n, 2) -> (2,) int its first pixel x, y; (2,) int its last one."""
    return np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)


def on_page(outlines: np.ndarray, page: tuple[int, int]) -> np.ndarray:
    """(n,) bool: whether at least half of the upright box around each outline (n, 4, 2) lies on the page."""
    first, last = np.floor(outlines.min(axis=1)), np.ceil(outlines.max(axis=1))
    inside = np.maximum(np.minimum(last, page[::-1]) - np.maximum(first, 0), 0)
    return inside.prod(axis=1) >= 0.5 * (last - first).prod(axis=1)


def warped(image: np.ndarray, way: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image resampled to `size` (width, height). `way` (3, 3): pixels of the result to those of the image.

    Pixels beyond the image have the colour of its edge.
    """
    first, last = extent(apply(way, corners((0, 0, *size))))
    # only the part that is needed: OpenCV's warps take no image with a side of 2^15 or more
    left, top = np.clip(first - 2, 0, np.subtract(image.shape[::-1], 1)).tolist()
    right, bottom = np.clip(last + 3, (left + 1, top + 1), image.shape[::-1]).tolist()
    shifted = way[:2] - np.array([[0, 0, left], [0, 0, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image[top:bottom, left:right], shifted, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=16)
def coarse_print(template: Template) -> np.ndarray:
    """(h, w) uint8 in coarse px (COARSE_PX of the template): 255 on print and one coarse px around it, else 0."""
    height, width = (side // COARSE_PX for side in template.picture.shape)
    gray = template.picture[: height * COARSE_PX, : width * COARSE_PX]
    small = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.dilate(cv2.compare(small, 250, cv2.CMP_LT), np.ones((3, 3), np.uint8))


@lru_cache(maxsize=32)
def print_of(template: Template, wide: int = 1, high: int = 1) -> np.ndarray:
    """(H, W) uint8: 255 on the template's print and within a window of `wide` x `high` px of it, else 0."""
    printed = cv2.compare(template.picture, 255 - PRINT_DARKNESS, cv2.CMP_LT)
    return printed if wide == high == 1 else cv2.dilate(printed, np.ones((high, wide), np.uint8))
