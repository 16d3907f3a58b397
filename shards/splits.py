"""Splits of rows, by hash or by year, and the check for leaks between them.

By hash: of the writer where one is known, else of the certificate (htr.certificate.split_of), so that a reader is
judged on hands that it has not seen and next year's data move nothing. By year: as a register is read in practice, a
reader of past years on a year to come. A split that the source gives wins over both.
"""

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa

from htr.certificate import SPLITS, split_of
from htr.io.sources import encode

SHARED = ("certificate", "image", "writer")  # what two splits could have in common
RANGE = re.compile(r"(?P<only>[0-9]{1,4})|(?P<first>[0-9]{1,4})?-(?P<last>[0-9]{1,4})?")


def parse_years(rule: str) -> list[tuple[str, int, int]]:
    """ "train=-2018,dev=2019,test=2021-" -> [(split, first year, last year), …], both included.

    Raises ValueError for anything else, and for ranges that overlap.
    """
    ranges = []
    for part in rule.split(","):
        split, _, years = part.strip().partition("=")
        match = RANGE.fullmatch(years)
        if split not in SPLITS or not match:
            raise ValueError(
                f"years '{rule}': write them as train=-2018,dev=2019,test=2020-; the splits are {', '.join(SPLITS)}"
            )
        only, first, last = match.groups()
        ranges.append((split, int(only or first or 0), int(only or last or 9999)))
    ordered = sorted(ranges, key=lambda item: item[1:])
    if any(low > high for _, low, high in ranges) or any(one[2] >= other[1] for one, other in pairwise(ordered)):
        raise ValueError(f"years '{rule}': a range is empty, or two ranges overlap")
    return ranges


def choose_splits(
    source: pa.Table, shares: dict[str, float], salt: str, years: str = "", may_share: tuple[str, ...] = ()
) -> np.ndarray:
    """-> (rows,) int8, positions in SPLITS.

    `years`: a rule for parse_years, in place of shares and salt. `may_share`: of SHARED, what may be in two splits;
    with a rule of years writers always may, since a physician writes for many years. Raises ValueError for a split
    that is not known, a year that the rule doesn't hold, and a certificate, image or writer that would be in two.
    """
    codes = {name: encode(source[name]) for name in (*SHARED, "split")}
    given, texts = codes["split"].indices.to_numpy(), codes["split"].dictionary.to_pylist()
    unknown = sorted({texts[code] for code in np.unique(given)} - {"", *SPLITS})
    if unknown:
        rows = np.flatnonzero(np.isin(given, [texts.index(text) for text in unknown]))
        raise ValueError(
            f"row {rows[0] + 1} of the source has a split that is not known ({len(rows)} of {len(given)} have one, "
            f"not shown, since it may be a text): the column split takes {', '.join(SPLITS)}, or nothing"
        )
    splits = np.array([SPLITS.index(text) if text in SPLITS else -1 for text in texts], np.int8)[given]
    open_rows = splits < 0
    if open_rows.any():
        if years:
            found = by_year(encode(source["year"]), parse_years(years), open_rows)
        else:
            found = by_hash(codes["certificate"], codes["writer"], shares, salt)
        splits = np.where(open_rows, found, splits)
    values = {name: column.indices.to_numpy() for name, column in codes.items()}
    named = {name: values[name] != empty_code(codes[name]) for name in SHARED}
    pages = encode(source["page"])  # of a TIFF: each is an image of its own
    if len(pages.dictionary) > 1:
        both = values["image"].astype(np.int64) * len(pages.dictionary) + pages.indices.to_numpy()
        values["image"] = np.unique(both, return_inverse=True)[1]
    check_leaks(values, named, splits, {*may_share, *(("writer",) if years else ())})
    return splits


def by_hash(certificate: pa.DictionaryArray, writer: pa.DictionaryArray, shares, salt: str) -> np.ndarray:
    """(R,) int8, positions in SPLITS. A certificate is never divided: it goes where its first known writer goes."""
    certificates, writers = certificate.indices.to_numpy(), writer.indices.to_numpy()
    named = np.flatnonzero(writers != empty_code(writer))
    of_certificate = np.full(len(certificate.dictionary), -1, np.int32)
    of_certificate[certificates[named][::-1]] = writers[named][::-1]  # the last one assigned, the first row, stays
    splits = np.zeros(len(of_certificate), np.int8)
    alone, known = np.flatnonzero(of_certificate < 0), np.flatnonzero(of_certificate >= 0)
    splits[alone] = hashed(certificate.dictionary.take(pa.array(alone)), shares, salt)
    splits[known] = hashed(writer.dictionary, shares, salt)[of_certificate[known]]
    return splits[certificates]


def hashed(groups: pa.Array, shares, salt: str) -> np.ndarray:
    """(groups,) int8, positions in SPLITS: in proportion to the shares, by a hash of `salt` and the group's name."""
    return np.array([SPLITS.index(split_of(group, shares, salt)) for group in groups.to_pylist()], np.int8)


def by_year(year: pa.DictionaryArray, ranges: list[tuple[str, int, int]], wanted: np.ndarray) -> np.ndarray:
    """(R,) int8, positions in SPLITS, -1 for rows whose year is not known or in no range. Raises ValueError for such a
    year in a row that is `wanted` (R,)."""
    texts = [text or "" for text in year.dictionary.to_pylist()]
    splits = np.full(len(texts), -1, np.int8)
    for code, text in enumerate(texts):
        for split, first, last in ranges if re.fullmatch(r"[0-9]{1,4}", text.strip()) else ():
            if first <= int(text) <= last:
                splits[code] = SPLITS.index(split)
    codes = year.indices.to_numpy()
    found = splits[codes]
    outside = np.flatnonzero(wanted & (found < 0))
    if len(outside):
        counts = np.bincount(codes[outside], minlength=len(texts))
        listed = [f"{shown(texts[code])} ({counts[code]} rows)" for code in np.argsort(-counts)[:5] if counts[code]]
        more = np.count_nonzero(counts) - len(listed)
        raise ValueError(
            f"{len(outside)} rows have a year that no split takes: {', '.join(listed)}"
            f"{f' and {more} more' if more else ''}; give every year a split, or leave such rows out of the source"
        )
    return found


def shown(year: str) -> str:
    """The year, if it looks like one; else a placeholder: a cell of another column must not get into a message."""
    return year if re.fullmatch(r"[0-9]{1,4}", year) else "not a number" if year else "none"


def check_leaks(
    codes: dict[str, np.ndarray], named: dict[str, np.ndarray], splits: np.ndarray, may_share: set[str]
) -> None:
    """Raises ValueError for what is in two splits and may not be.

    `codes`: for each of SHARED (certificate, image, writer) the code of each row's (R,); `named`: (R,) whether it has
    any.
    """
    leaks = {}
    for name in SHARED:
        if name in may_share:
            continue
        values = codes[name]
        last = np.full(values.max(initial=0) + 1, -1, np.int8)
        last[values] = splits
        torn = values[(last[values] != splits) & named[name]]
        if len(torn):
            leaks[name] = len(np.unique(torn))
    if leaks:
        counts = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in leaks.items())
        allow = " ".join(f"--may-share {name}" for name in leaks)
        raise ValueError(
            f"the splits overlap: {counts} would be in more than one. Mend the source's columns (certificate, "
            f"image, writer, year, split), or allow it with {allow}"
        )


def empty_code(column: pa.DictionaryArray) -> int:
    """The code of the empty text in a dictionary-encoded column; -1 where it has none."""
    return column.dictionary.index("").as_py()
