"""What benchmarks/forms.py measured, summed up: a table for people, figures for the last line."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from htr.synth.scanner import SEVERITIES
from support.form_kinds import LIMITS, WORSE
from support.records import Job

HARD = SEVERITIES["hard"].dpi
Rows = Sequence[tuple[Job, dict]]


def sum_real(rows: Rows) -> dict:
    print(f"{'dpi':>5} {'scans':>6} {'rejected':>9} {'within 3 px':>12} {'median':>7} {'largest':>8} {'CPU ms':>7}")
    found = [entry for _, entry in rows]
    good = [entry for entry in found if "named" in entry]
    for dpi in HARD:
        own = [entry for entry in good if entry["dpi"] == dpi]
        scans = [entry for entry in found if entry["dpi"] == dpi]
        if own:
            row = sum(e["within"] for e in own) / sum(e["corners"] for e in own), np.median([e["middle"] for e in own])
            row = *row, max(e["largest"] for e in own), np.median([e["ms"] for e in scans])
            print(f"{dpi:5} {len(scans):6} {len(scans) - len(own):9} {row[0]:12.4f} {row[1]:7.2f} {row[2]:8.2f} "
                  f"{row[3]:7.1f}")  # fmt: skip
    print(f"scores of the accepted: least {min(e['score'] for e in good):.2f}")
    print(*(f"{e['dpi']} dpi, {e['form']}: {e['reason']}" for e in found if "reason" in e), sep="\n")
    unknown = [entry["unknown"] for entry in found if "unknown" in entry]
    ratios = [entry["ratio"] for entry in found if "ratio" in entry]
    return {
        "corners_within_3px": round(sum(e["within"] for e in good) / sum(e["corners"] for e in good), 5),
        "wrong_edition": sum(entry["named"] != entry["form"] for entry in good),
        "rejected_real": f"{len(found) - len(good)} of {len(found)}",
        "unknown_edition_accepted": f"{sum(unknown)} of {len(unknown)}",
        "register_ms": round(float(np.median([e["ms"] for e in found if e["dpi"] == 200] or [0])), 2),
        "ratio_to_orb_ecc": round(float(np.median(ratios or [0])), 3),
    }


def sum_foreign(rows: Rows) -> dict:
    seen, accepted = Counter(e["kind"] for _, e in rows), Counter(e["kind"] for _, e in rows if e["accepted"])
    print(f"{'foreign':>20} {'pages':>6} {'accepted':>9}")
    print(*(f"{kind:>20} {count:6} {accepted[kind]:9}" for kind, count in seen.items()), sep="\n")
    return {"foreign_accepted": accepted.total(), "foreign": len(rows),
            "foreign_ms": round(float(np.median([e["ms"] for _, e in rows])), 2)}  # fmt: skip


def sum_kinds(rows: Rows) -> dict:
    figures = {}
    print(f"{'kind':>20} {'scans':>6} {'accepted':>9} {'near':>7} {'wrong':>6} {'CPU ms':>7}")
    for kind in WORSE:
        own = [entry for job, entry in rows if job[1] == kind]
        near = np.mean([entry.get("apart") is not None and entry["apart"] < LIMITS.get(kind, 3) for entry in own])
        wrong, ms = sum(entry.get("wrong", False) for entry in own), np.median([entry["ms"] for entry in own])
        accepted = np.mean(["named" in entry for entry in own])
        print(f"{kind:>20} {len(own):6} {accepted:9.4f} {near:7.4f} {wrong:6} {ms:7.1f}")
        for reason, count in Counter(entry["reason"] for entry in own if "reason" in entry).most_common():
            print(f"{count:27} x {reason}")
        figures[kind] = {"scans": len(own), "accepted": round(float(accepted), 4), "near": round(float(near), 4),
                         "wrong": wrong, "unsaid": sum(entry.get("unsaid", False) for entry in own),
                         "ms": round(float(ms), 1)}  # fmt: skip
    return {"kinds": figures}


def sum_remade(rows: Rows) -> dict:
    for job, entry in rows:
        print(f"{job[1]} from {job[2]} scans ({entry['left_out']} left out): missed {entry['missed']}, "
              f"false {entry['false']}, {entry['rejected']} of {entry['scans']} hard scans rejected")  # fmt: skip
    total = {key: sum(e[key] for _, e in rows) for key in ("fields", "proposed", "within", "corners", "rejected")}
    missed, false = (sum(len(e[key]) for _, e in rows) for key in ("missed", "false"))
    return {"remade": {"fields_found": round(1 - missed / total["fields"], 4),
                       "fields_false": round(false / max(total["proposed"], 1), 4),
                       "corners_within_3px": round(total["within"] / max(total["corners"], 1), 4),
                       "rejected": total["rejected"]}}  # fmt: skip
