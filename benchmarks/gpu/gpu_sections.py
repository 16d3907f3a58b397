"""The sections of gpu_check.py, one a process: python benchmarks/gpu/gpu_sections.py SECTION DEVICE SECONDS [quick]

Each says what it finds in lines of JSON as soon as it is known, `checks` (what must be true) and `rows` (a table) among
them; the last lines hold all of it.
"""

import sys
import time

from gpu_fast import compile, speed
from gpu_made import make_dataset
from gpu_ranks import nccl
from gpu_right import layers, losses, readings, repeat, resume
from gpu_section import Section, short


def data(section: Section) -> None:
    """Made once, for the sections that wait for it."""
    began = time.monotonic()
    section.say(lines=make_dataset())
    section.say(s=short(time.monotonic() - began))


def main() -> int:
    name, device, seconds, *more = sys.argv[1:]
    # the data set is made in forked processes, which must not inherit a GPU that is in use
    section = Section("cpu" if name == "data" else device, float(seconds), "quick" in more)
    SECTIONS[name](section)
    section.say()
    return 0


SECTIONS = {f.__name__: f for f in (data, losses, layers, repeat, readings, resume, speed, compile, nccl)}

if __name__ == "__main__":
    sys.exit(main())
