"""The rules of the house, read from the imports: floors, doors, no circles, no pickles."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "finetune"

# From the face down to the ground; a room may import from floors below its own.
FLOORS = {
    "face": {"cli", "__main__"},
    "stories": {
        *("train", "stages", "resume", "outcome", "lr_find", "lr_search", "evaluate", "predict", "asked"),
        "ablation",
        *("describe", "init", "check", "check_report", "rehearsal"),
        *("optimizers", "optimizer_race"),
    },
    "record": {
        *("experiment", "reading", "journal", "diagnosis", "report", "lr_report", "trained", "run", "ending"),
        "checkpointing",
    },
    "words": {"config", "config_file", "schema"},
    "parts": {
        *("data", "table", "images", "split", "transforms", "sampler", "loaders", "builtin", "model"),
        *("groups", "head", "plan", "balance", "losses", "metadata", "monitor", "task"),
        *("optim", "update_rules", "rates", "landscapes", "finder", "learner", "guards", "norms"),
        *("inference", "metrics", "plot", "progress", "sealed", "training_state", "early_stopping"),
        "findings",
    },
    "ground": {"__init__", "errors", "seed", "device", "atomic", "text", "layout_names", "signals", "cores"},
}

# The parts that are made of other parts, and of which.
MADE_OF = {
    "data": {"builtin", "images", "metadata", "split", "table"},
    "loaders": {"data", "images", "sampler", "transforms"},
    "transforms": {"model"},
    "finder": {"inference"},
    "findings": {"data", "images"},
    "model": {"groups", "head"},
    "plan": {"groups", "rates"},
    "optim": {"update_rules"},
    "table": {"metadata"},
    "early_stopping": {"monitor", "rates"},
    "guards": {"norms"},
    "task": {"monitor"},
    "learner": {"guards", "norms"},
    "landscapes": {"optim", "update_rules"},
}

DOORS = {
    "fastai": {"learner"},
    "fastcore": {"learner"},
    "yaml": {"config_file"},
    "pandas": {"table"},
    "pyarrow": {"table"},
    "typer": {"cli"},
    "rich": {"progress"},
    "matplotlib": {"plot"},
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """Give the module or folder directly in the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Give every absolute module name that a file imports, wherever it does."""
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
    known = set().union(*FLOORS.values())
    return {p[1] if p[1:] and p[1] in known else "__init__" for p in parts if p[0] == "finetune"} - {
        room(path)
    }


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} == set().union(*FLOORS.values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    height = {name: level for level, floor in enumerate(FLOORS.values()) for name in floor}
    for other in rooms_imported(path):
        below = height[other] > height[room(path)]
        beside = height[other] == height[room(path)] and may_stand_beside(room(path), other)
        assert below or beside, f"{room(path)} may not import {other}"


def may_stand_beside(importer, imported):
    if importer in FLOORS["parts"]:
        return imported in MADE_OF.get(importer, set())
    return True


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


def test_only_stories_and_what_prepares_them_hold_a_config():
    holders = {room(path) for path in FILES if "config" in rooms_imported(path)}
    assert holders <= FLOORS["stories"] | {"experiment", "reading", "config_file", "schema"}


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
