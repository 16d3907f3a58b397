"""Lines with a baseline and no outline: an outline is made from the distance of neighbouring baselines."""

import numpy as np

from htr.io.direction import drawn_turn, points, turned

ASCENDER_SHARE, DESCENDER_SHARE = 0.7, 0.3  # of the distance between two baselines: ascenders and descenders
MIN_DISTANCE_RATIO = 0.3  # of the median distance: baselines nearer to each other are of one line
MIN_PITCH_PX = 4  # px, of a line that could be read
MAX_POINTS = 500  # of a baseline whose points are all taken
ALONE = "line has a baseline alone, and no neighbour tells its height"


def cut_around(rows: list[dict[str, str]]) -> None:
    """Give each row of a page that has a baseline alone a polygon, or the reason in `reject` why not."""
    for row in rows:
        if not is_area(row["polygon"]) and is_box(row["box"]):
            row["polygon"] = ""  # of a point or two: the box tells where the line is
    bare = [n for n, row in enumerate(rows) if not is_box(row["box"]) and not is_area(row["polygon"])]
    bare = [n for n in bare if not rows[n].get("reject")]
    if not bare:
        return
    baselines = [points(row["baseline"]) for row in rows]
    turns = [None if line is None else turn_of(line, row) for line, row in zip(baselines, rows, strict=True)]
    pitches = {turn: pitch_of(baselines, turns, turn) for turn in {turns[n] for n in bare} - {None}}
    usual = max((pitch for pitch in pitches.values() if pitch), default=pitch_of(baselines, turns, 0))
    for n in bare:
        if baselines[n] is None:
            continue
        # a line in the margin may be the only one that runs up the page: its writing is as high as the others'
        pitch = pitches[turns[n]] or usual
        if pitch is None:
            rows[n]["reject"] = ALONE
            continue
        line = baselines[n][:: len(baselines[n]) // MAX_POINTS + 1]
        if turns[n] != drawn_turn(line):
            line = line[::-1]
        line = turned(line, turns[n])
        up, down = np.array([0, ASCENDER_SHARE * pitch]), np.array([0, DESCENDER_SHARE * pitch])
        outline = np.concatenate([line - up, (line + down)[::-1]])
        outline = turned(outline, -turns[n] % 360)
        rows[n]["box"] = ""
        rows[n]["polygon"] = " ".join(f"{x:g},{y:g}" for x, y in (np.round(outline) + 0.0).tolist())


def is_box(cell: str) -> bool:
    """Whether it has an area; what is no box at all is for who reads it to say."""
    try:
        _, _, width, height = map(float, cell.split())
    except ValueError:
        return bool(cell)
    return width > 0 and height > 0


def is_area(cell: str) -> bool:
    """Whether a polygon has three points that are not on one line; what are no points is for who reads it to say."""
    outline = points(cell)
    if outline is None:
        return len(cell.split()) > 2
    along = outline[1:] - outline[0]
    return len(outline) > 2 and bool(np.abs(along[:, 0] * along[-1, 1] - along[:, 1] * along[-1, 0]).max() > 0)


def turn_of(baseline: np.ndarray, row: dict[str, str]) -> int:
    """Of a line that has a baseline: as it is drawn or, where it is the other way round, as its region says."""
    turn, stated = drawn_turn(baseline), int(row.get("turn") or 0)
    return stated if abs(turn - stated) == 180 else turn


def pitch_of(baselines: list[np.ndarray | None], turns: list[int | None], turn: int) -> float | None:
    """The usual distance between the page's baselines of this turn; None where nothing tells it."""
    own = [turned(line, turn) for line, way in zip(baselines, turns, strict=True) if way == turn]
    apart = np.diff(np.sort([line[:, 1].mean() for line in own]))
    apart = apart[apart > MIN_DISTANCE_RATIO * np.median(apart)] if len(apart) else apart
    return float(np.median(apart)) if len(apart) and np.median(apart) >= MIN_PITCH_PX else None
