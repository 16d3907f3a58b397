"""Lines with a baseline and no outline: an outline is made from the distance of neighbouring baselines."""

import numpy as np

ASCENDER_SHARE, DESCENDER_SHARE = 0.7, 0.3  # of the distance between two baselines: ascenders and descenders
MIN_DISTANCE_RATIO = 0.3  # of the median distance: baselines nearer to each other are of one line
MAX_POINTS = 500  # of a baseline whose points are all taken
VERTICAL = "baseline is steeper than 45 degrees: the line is vertical"
ALONE = "line has a baseline alone, and no neighbour tells its height"


def cut_around(rows: list[dict[str, str]]) -> None:
    """Give each row of a page that has a baseline alone a polygon, or the reason in `reject` why not."""
    baselines = [points(row["baseline"]) for row in rows]
    for row, baseline in zip(rows, baselines, strict=True):
        if baseline is not None and not row.get("reject"):
            across, down = np.abs(baseline[-1] - baseline[0])
            if down > across and is_upright(row):
                row["reject"] = VERTICAL
    bare = [n for n, row in enumerate(rows) if not row["box"] and len(row["polygon"].split()) < 3]
    bare = [n for n in bare if baselines[n] is not None and not rows[n].get("reject")]
    if not bare:
        return
    middles = np.sort([baseline[:, 1].mean() for baseline in baselines if baseline is not None])
    apart = np.diff(middles)
    apart = apart[apart > MIN_DISTANCE_RATIO * np.median(apart)] if len(apart) else apart
    for n in bare:
        if not len(apart) or np.median(apart) < 4:
            rows[n]["reject"] = ALONE
            continue
        pitch = float(np.median(apart))
        line = baselines[n][:: len(baselines[n]) // MAX_POINTS + 1]
        up, down = np.array([0, ASCENDER_SHARE * pitch]), np.array([0, DESCENDER_SHARE * pitch])
        outline = np.concatenate([line - up, (line + down)[::-1]])
        rows[n]["polygon"] = " ".join(f"{x:g},{y:g}" for x, y in np.round(outline).tolist())


def is_upright(row: dict[str, str]) -> bool:
    """Whether a line's outline is higher than wide, or it has none: else its steep baseline is a slip, and ignored."""
    box = row["box"].split()
    if len(box) == 4:
        try:
            return float(box[3]) > float(box[2])
        except ValueError:
            return True
    outline = points(row["polygon"])
    return outline is None or bool(np.ptp(outline[:, 1]) > np.ptp(outline[:, 0]))


def points(cell: str) -> np.ndarray | None:
    """(n, 2) float64, two or more; None where they are none."""
    try:
        found = np.array([[float(v) for v in point.split(",")] for point in cell.split()])
    except ValueError:
        return None
    return found if found.ndim == 2 and found.shape[1] == 2 and len(found) > 1 and np.isfinite(found).all() else None
