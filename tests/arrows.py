"""Which file imports which, from the code itself: rooms, floors, arrows and circles. tests/test_house.py holds them.

    python tests/arrows.py            the figures of this checkout and the arrows between its rooms
    python tests/arrows.py FOLDER     of another checkout

A room is a folder of a package, with what lies below it. The verbs, which lie directly in jobs/, are a room, "jobs"; of
what lies directly in htr/, the vocabulary that all use is the room "htr.base", what is made of the rooms is "htr". An
arrow goes from who imports to what is imported. Imports inside functions count like any other, and so do those of a
package that Python runs on the way (`import htr.models.layers` runs htr/models/__init__.py).
"""

import ast
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("htr", "shards", "jobs")
# of htr/
BASE = ("certificate", "charset", "code_digest", "process_end", "references", "types", "whole_files", "worker_pool")
FOLDERS = (*PACKAGES, "tests", "benchmarks")


@dataclass(frozen=True)
class House:
    """`files`: each module's file; `arrows`: for each module those of ours that it imports."""

    root: Path
    files: dict[str, Path]
    arrows: dict[str, set[str]]

    @classmethod
    def of(cls, root: Path) -> "House":
        files = {}
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return cls(root, files, {module: imported(module, path, files) for module, path in files.items()})

    def room(self, module: str) -> str:
        """As htr.models, of htr.models.ctc.loss too."""
        parts = self.files[module].relative_to(self.root).with_suffix("").parts
        if parts[0] == "htr" and parts[1] in (*BASE, "__init__", "alphabet"):
            return "htr.base"
        return ".".join(parts[:-1][:2])

    def room_arrows(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {self.room(module): set() for module in self.files}
        for module, others in self.arrows.items():
            found[self.room(module)] |= {self.room(other) for other in others} - {self.room(module)}
        return found

    def verbs(self) -> set[str]:
        """Files directly in jobs/, but for the package's own two."""
        here = self.root / "jobs"
        inside = {module for module, path in self.files.items() if path.parent == here}
        return inside - {"jobs", "jobs.__main__"}


def imported(module: str, path: Path, files: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports, with the packages that this runs."""
    found = set()
    for name in named(path, module):
        own = module.split(".")
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            package = parts[:end]
            if own[:end] != package:  # what it lies in itself runs before it
                found.add(".".join(package))
    return (found & set(files)) - {module}


def named(path: Path, module: str = "") -> set[str]:
    """Everything that a file imports, inside functions too: modules, and names that may be modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Sets of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(arrows[node]):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(set(stack[start:]))
            del stack[start:]

    for node in sorted(arrows):
        if node not in number:
            visit(node)
    return found


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """For each node the longest way down; the nodes of a circle share a floor."""
    group = {node: frozenset([node]) for node in arrows}
    for circle in circles(arrows):
        group |= dict.fromkeys(circle, frozenset(circle))
    known: dict[frozenset, int] = {}

    def floor(one: frozenset) -> int:
        if one not in known:
            below = {group[other] for node in one for other in arrows[node]} - {one}
            known[one] = 1 + max(map(floor, below), default=-1)
        return known[one]

    return {node: floor(group[node]) for node in arrows}


def files_in_folders(root: Path) -> Counter:
    """How many files of code each folder holds: Python and shell; those below it are its own folders'."""
    found: Counter = Counter()
    for folder in (*FOLDERS, "slurm"):
        for path in (root / folder).rglob("*"):
            if path.suffix in (".py", ".sh") and "__pycache__" not in path.parts:
                found[str(path.relative_to(root).parent)] += 1
    return found


def functions(house: House) -> list[tuple[int, str]]:
    """(lines, module:function) of every function, longest first."""
    found = []
    for module, path in house.files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((node.end_lineno - node.lineno + 1, f"{module}:{node.name}"))
    return sorted(found, reverse=True)


def figures(house: House) -> list[str]:
    rooms = house.room_arrows()
    levels = floors(rooms)
    crowded, most = files_in_folders(house.root).most_common(1)[0]
    lines, longest = functions(house)[0]
    verbs = house.verbs()
    to_verbs = sum(len(others & verbs) for others in house.arrows.values())
    return [
        f"rooms {len(rooms)}, floors {max(levels.values()) + 1}",
        f"arrows between rooms {sum(map(len, rooms.values()))}, between files {sum(map(len, house.arrows.values()))}",
        f"circles of rooms {len(circles(rooms))}, of files {len(circles(house.arrows))}",
        f"files directly in jobs/ {len(verbs)}, arrows to them {to_verbs}",
        f"files in the fullest folder {most} ({crowded}/)",
        f"lines of the longest function {lines} ({longest})",
    ]


def main() -> None:
    root = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent.parent
    house = House.of(root)
    rooms = house.room_arrows()
    levels = floors(rooms)
    print("\n".join(figures(house)))
    for circle in (*circles(rooms), *circles(house.arrows)):
        print(f"circle: {', '.join(sorted(circle))}")
    for room in sorted(rooms, key=lambda room: (-levels[room], room)):
        print(f"{levels[room]:2d}  {room:24} -> {', '.join(sorted(rooms[room]))}")


if __name__ == "__main__":
    main()
