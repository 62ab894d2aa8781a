"""Print the package's rooms, the floors they stand on, and the imports between them.

    python scripts/rooms.py [PACKAGE]               # of another checkout, for a comparison
    python scripts/rooms.py --draw docs/rooms.svg   # … as a drawing

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
    parser.add_argument("--draw", type=Path, help="where to draw them")
    options = parser.parse_args()
    package = options.package
    needs = room_imports(package)
    floors = floors_of(needs)
    if options.draw:
        options.draw.write_text(drawing(needs, floors), encoding="utf-8")
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


def direct(needs: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports that no way over other rooms implies, of rooms without circles."""
    below: dict[str, set[str]] = {}

    def reached(room: str) -> set[str]:
        if room not in below:
            below[room] = set().union(needs[room], *map(reached, needs[room]))
        return below[room]

    return {room: own - set().union(*map(reached, own)) for room, own in needs.items()}


_WIDTH, _ROW, _BOX, _HIGH = 960, 76, 24, 7.4
"""Pixels: of the drawing, between floors, height of a box, width of a letter."""


def drawing(needs: Mapping[str, set[str]], floors: Mapping[str, int]) -> str:
    """Draw rooms without circles as an SVG: floors from the top down, and `direct` imports as lines."""
    highest, places = max(floors.values()), dict[str, tuple[float, float]]()
    for floor in range(highest, 0, -1):
        rooms = sorted(room for room in floors if floors[room] == floor)
        for number, room in enumerate(rooms):
            places[room] = (_WIDTH * (2 * number + 1) / (2 * len(rooms)), _ROW * (highest - floor) + 30)
    lines = [
        f'<path class="way" d="M{places[room][0]:.0f} {places[room][1] + _BOX / 2:.0f}'
        f'L{places[other][0]:.0f} {places[other][1] - _BOX / 2:.0f}"/>'
        for room, others in sorted(direct(needs).items())
        for other in sorted(others)
    ]
    boxes = [
        f'<rect x="{x - (len(room) * _HIGH + 16) / 2:.0f}" y="{y - _BOX / 2:.0f}" rx="5" height="{_BOX}" '
        f'width="{len(room) * _HIGH + 16:.0f}"/><text x="{x:.0f}" y="{y + 4:.0f}">{room}</text>'
        for room, (x, y) in places.items()
    ]
    style = (
        "rect{fill:#eef3fa;stroke:#3f6fb5}.way{stroke:#9aa7b8;fill:none}"
        "text{font:12px monospace;text-anchor:middle;fill:#1c2430}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_ROW * highest - 10}" role="img">'
    title = "<title>The rooms of the package, each above those that it imports</title>"
    ground = '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, title, f"<style>{style}</style>", ground, *lines, *boxes, "</svg>\n"])


if __name__ == "__main__":
    main()
