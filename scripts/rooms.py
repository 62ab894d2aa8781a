"""Print the package's rooms, the floors they stand on, and the imports between them.

    python scripts/rooms.py [PACKAGE]          # of another checkout, for a comparison

A room is a module or folder directly in the package. Its floor is the longest way of imports down from it; an
arrow is one room importing another, however often. Rooms that import each other in a circle have no floor.
"""

import argparse
import ast
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "finetune"


def main() -> None:
    """Print one line per floor, from the top down, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=PACKAGE)
    package = parser.parse_args().package
    needs = room_imports(package)
    floors = floors_of(needs)
    for floor in sorted(set(floors.values()), reverse=True):
        print(f"{floor:2}  {'  '.join(sorted(room for room in floors if floors[room] == floor))}")
    circle = sorted(set(needs) - set(floors))
    arrows = sum(map(len, needs.values()))
    print(f"{len(needs)} rooms, {len(set(floors.values()))} floors, {arrows} arrows", end=", ")
    print(f"in circles: {', '.join(circle)}" if circle else "no circles")


def room_imports(package: Path) -> dict[str, set[str]]:
    """Return the rooms that each room imports, wherever in its files it does."""
    rooms = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    needs: dict[str, set[str]] = {room: set() for room in rooms}
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package.name:
                parts = node.module.split(".")[1:]
                named = parts[:1] or [
                    alias.name if alias.name in rooms else "__init__" for alias in node.names
                ]
                needs[room] |= {name for name in named if name != room}
    return needs


def floors_of(needs: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the floor of every room that is in no circle and imports none that is; the ground is 1."""
    floors: dict[str, int] = {}
    while ready := [room for room in needs if room not in floors and needs[room] <= set(floors)]:
        floors |= {room: 1 + max((floors[other] for other in needs[room]), default=0) for room in ready}
    return floors


if __name__ == "__main__":
    main()
