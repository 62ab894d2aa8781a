"""The rules of the house, read from the imports: floors, doors, no circles, no pickles."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "finetune"

# From the command line down to the ground; a room may import from floors below its own.
FLOORS = (
    {"__main__", "__init__"},
    {"cli"},
    {"api"},
    {"commands"},
    {"experiment", "report"},
    {"runs", "lr_finder"},
    {"training", "config"},
    {"data", "optim"},
    {"model", "machine", "display"},
    {"metrics"},
    {"errors", "choices", "seed", "text", "version"},
)

# The rooms that may know a config; every other takes plain values.
CONFIG_HOLDERS = {"__init__", "cli", "api", "commands", "experiment"}

DOORS = {
    "fastai": {"training"},
    "fastcore": {"training"},
    "yaml": {"config"},
    "pandas": {"data"},
    "pyarrow": {"data"},
    "typer": {"cli"},
    "rich": {"display"},
    "IPython": {"display"},
    "matplotlib": {"report"},
}

# Packages whose `__init__.py` holds a docstring alone: importing one of their modules must not import the
# rest, and with it torch (`init`, `--help`) or fastai (`predict`).
EMPTY_FACES = ("api", "commands", "config", "data", "experiment", "lr_finder", "metrics", "optim", "training")

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """Return the module or folder directly in the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Return every absolute module name that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path):
    parts = [name.split(".") for name in imports(path)]
    known = set().union(*FLOORS)
    return {p[1] if p[1:] and p[1] in known else "__init__" for p in parts if p[0] == "finetune"} - {
        room(path)
    }


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} == set().union(*FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    floor = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    for other in rooms_imported(path):
        assert floor[other] > floor[room(path)], f"{room(path)} may not import {other}"


@pytest.mark.parametrize("name", EMPTY_FACES)
def test_faces_that_must_stay_light_are_empty(name):
    face = ast.parse((PACKAGE / name / "__init__.py").read_text())
    assert [type(node) for node in face.body] == [ast.Expr]


def test_there_are_no_circles():
    graph = {}
    for path in FILES:
        graph.setdefault(room(path), set()).update(rooms_imported(path))
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        for name in free:
            del graph[name]
    assert not graph, f"import circle among {sorted(graph)}"


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library):
    users = {room(p) for p in FILES if any(name.split(".")[0] == library for name in imports(p))}
    assert users <= DOORS[library]


def test_only_what_prepares_an_experiment_holds_a_config():
    holders = {room(path) for path in FILES if "config" in rooms_imported(path)}
    assert holders <= CONFIG_HOLDERS


@pytest.mark.parametrize(
    "pattern",
    [r"\bpickle\b", r"weights_only=False", r"yaml\.load\(", r"\beval\(", r"import \*", r"except Exception"],
)
def test_what_never_happens(pattern):
    for path in FILES:
        code = re.sub(r'"""(.|\n)*?"""', "", path.read_text())
        code = code.replace(".eval()", "").replace("from pickle import UnpicklingError", "")
        assert not re.search(pattern, code), f"{path} has {pattern}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") <= 320, "make it a folder"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            parameters = len(node.args.args) + len(node.args.kwonlyargs)
            assert length <= 60, f"{node.name} is {length} lines long"
            assert parameters <= 9, f"{node.name} takes {parameters} parameters"


def test_there_is_no_room_for_odds_and_ends():
    assert not {"utils", "common", "helpers", "base", "misc"} & {path.stem for path in FILES}
