"""A data set of drawn lines, for measurements that ask for lines and not for handwriting."""

from pathlib import Path

import cv2
import numpy as np


def drawn(folder: Path, count: int = 1200) -> Path:
    """A data set of drawn lines, 64 high."""
    from htr.io.sources import read_source
    from shards.index import merge
    from shards.plan import Settings, make_plan
    from shards.write import write_shard

    rng, rows = np.random.default_rng(0), ["image,text,certificate"]
    (folder / "source").mkdir()
    for number in range(count):
        width = int(np.clip(rng.lognormal(6.4, 0.5), 60, 2000))
        image = rng.normal(225, 6, (64, width)).clip(0, 255).astype(np.uint8)
        for x in range(8, width - 20, 16):
            points = np.array([x, 22]) + np.cumsum(rng.normal(0, 7, (6, 2)), axis=0)
            cv2.polylines(image, [np.rint(points).astype(np.int32)], False, 40, 2, cv2.LINE_AA)
        cv2.imwrite(str(folder / "source" / f"{number}.png"), image)
        rows.append(f"{number}.png,{'n' * (width // 16)},c{number}")
    (folder / "source" / "lines.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    table, images = read_source(folder / "source" / "lines.csv")
    plan = make_plan(folder / "dataset", table, Settings(rows=250, shares={"train": 1.0}))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merge(plan)
    return folder / "dataset"
