"""The rules of the house, read from the imports: floors, doors, no circles, no pickles."""

import ast
import re
from functools import cache
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
    {"runs", "lr_finder", "loggers"},
    {"training", "config"},
    {"data", "optim"},
    {"model", "machine", "display"},
    {"task"},
    {"analysis", "metrics", "packaged_weights"},
    {"plugins"},
    {"errors", "choices", "seed", "text", "layout", "notes", "progress", "streams", "version", "imports"},
)

# The rooms that may know a config; every other takes plain values.
CONFIG_HOLDERS = {"__init__", "cli", "api", "commands", "experiment"}

# The rooms that a person reads; every other returns notes, and takes what starts a bar.
SHOWS = {"cli", "api", "commands", "report"}

DOORS = {
    "cleanlab": {"analysis"},
    "pillow_heif": {"data"},
    "onnx": {"model"},
    "onnxruntime": {"model"},
    "fastai": {"training"},
    "fastcore": {"training"},
    "yaml": {"config"},
    "pandas": {"data"},
    "pyarrow": {"data"},
    "typer": {"cli"},
    "rich": {"display"},
    "IPython": {"display"},
    "matplotlib": {"report"},
    "sklearn": {"analysis", "data"},
    "timm": {"model"},
    "huggingface_hub": {"model"},
    "fastapi": {"commands"},
    "starlette": {"commands"},
    "uvicorn": {"commands"},
    "optuna": {"commands"},
    "sqlalchemy": {"commands"},
    "ray": {"commands"},
    "tensorboard": {"loggers"},
    "wandb": {"loggers"},
    "mlflow": {"loggers"},
}

# Packages whose `__init__.py` holds a docstring alone: importing one of their modules must not import the
# rest, and with it torch (`init`, `--help`) or fastai (`predict`).
EMPTY_FACES = (
    "analysis",
    "api",
    "commands",
    "config",
    "data",
    "experiment",
    "loggers",
    "lr_finder",
    "metrics",
    "optim",
    "training",
)

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """Return the module or folder directly in the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path):
    """Return the parsed code of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path):
    """Return every absolute module name that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(tree(path)):
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
    face = ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))
    assert [type(node) for node in face.body] == [ast.Expr]


def test_there_are_no_circles_of_rooms():
    graph = {}
    for path in FILES:
        graph.setdefault(room(path), set()).update(rooms_imported(path))
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        for name in free:
            del graph[name]
    assert not graph, f"import circle among {sorted(graph)}"


def test_there_are_no_circles_of_modules():
    """Nor may an import hide in a function to break one."""
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in FILES}
    names = {f"finetune.{name}".removesuffix(".__init__"): name for name in modules if name != "__init__"}
    graph = {
        name: {names[p] for i in imports(path) for p in (i, i.rpartition(".")[0]) if p in names} - {name}
        for name, path in modules.items()
    }
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


def test_only_commands_and_reports_show_anything():
    assert {room(path) for path in FILES if "display" in rooms_imported(path)} <= SHOWS


@pytest.mark.parametrize(
    "pattern",
    [r"\bpickle\b", r"weights_only=False", r"yaml\.load\(", r"\beval\(", r"import \*", r"except Exception"],
)
def test_what_never_happens(pattern):
    for path in FILES:
        code = re.sub(r'"""(.|\n)*?"""', "", path.read_text(encoding="utf-8"))
        code = code.replace(".eval()", "").replace("from pickle import UnpicklingError", "")
        assert not re.search(pattern, code), f"{path} has {pattern}"


LINES_OF_A_FILE, LINES_OF_A_FUNCTION, PARAMETERS = 300, 40, 7


def functions(path):
    """Return the functions of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_command(node):
    """Tell whether a function is a command, whose parameters are its options: typer takes no other form."""
    return any(ast.unparse(decorator).startswith("app.command(") for decorator in node.decorator_list)


def over_the_limits():
    """Return what is over a limit: file or function, and its size."""
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LINES_OF_A_FILE:
            yield name, lines
        for node in functions(path):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            taken = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            if (lines := node.end_lineno - node.lineno + 1) > LINES_OF_A_FUNCTION:
                yield f"{name}: lines of {node.name}", lines
            if len(taken) > PARAMETERS and not is_command(node):
                yield f"{name}: parameters of {node.name}", len(taken)


def test_files_and_functions_stay_small():
    assert not dict(over_the_limits()), "split it; a file that outgrows its limit becomes a folder"


def literals(path):
    """Return the choices that a file spells out as a `Literal` of several values."""
    for node in ast.walk(tree(path)):
        choice = isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"
        if choice and isinstance(node.slice, ast.Tuple):
            yield frozenset(ast.unparse(value) for value in node.slice.elts)


def test_every_choice_is_spelled_out_once():
    places = {}
    for path in FILES:
        for choice in literals(path):
            places.setdefault(choice, []).append(path.relative_to(PACKAGE).as_posix())
    twice = {tuple(sorted(choice)): found for choice, found in places.items() if len(set(found)) > 1}
    assert not twice, "name it in choices.py"


def test_docstrings_say_what_a_function_does():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                words = (ast.get_docstring(node) or "").split()
                assert words[:1] not in (["Give"], ["Gives"]), f"{path}: {node.name} does not say Return"


def test_there_is_no_room_for_odds_and_ends():
    parts = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not {"utils", "common", "helpers", "base", "misc"} & parts


TESTS = Path(__file__).parent


def test_every_test_file_holds_tests():
    for path in TESTS.glob("test_*.py"):
        names = [node.name for node in tree(path).body if isinstance(node, ast.FunctionDef)]
        assert any(name.startswith("test_") for name in names), f"{path.name} has no test"


def test_no_two_tests_of_a_file_have_one_name():
    """The second would replace the first, which nobody would ever see fail."""
    for path in TESTS.glob("test_*.py"):
        body = tree(path).body
        names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
        assert len(set(names)) == len(names), f"{path.name} defines one function twice"


# Files of claims that no one module or folder holds.
CLAIMS = {
    "ranks_apart",
    "divided_runs",
    "docs",
    "architecture",
    "check_fuzz",
    "configs",
    "diagnosis_advice",
    "diagnosis_thresholds",
    "dispatch",
    "fuzz_paths",
    "fuzz_published",
    "fuzz_runs",
    "fuzz_script",
    "kept_runs",
    "disk",
    "field_folders",
    "field_exports",
    "field_published",
    "field_tables",
    "published_formats",
    "fuzz_config",
    "fuzz_folders",
    "fuzz_tables",
    "gpu",
    "oldest",
    "sample_mutants",
    "stranger",
    "payload",
    "peers",
    "python_examples",
    "several_labels",
    "scale",
}

# Modules that are tested through what uses them, and by which file; errors and choices hold no behaviour.
TESTED_IN = {
    "config/installed_names.py": "test_plugins.py",
    "experiment/packages.py": "test_plugins.py",
    "lr_finder/installed.py": "test_plugins.py",
    "metrics/installed.py": "test_plugins.py",
    "optim/installed.py": "test_plugins.py",
    "runs/history.py": "test_recorder.py",
    "config/load_sweep.py": "test_sweep_plan.py",
    "commands/job/sweep_workers.py": "test_job.py",
    "config/read_space.py": "test_search_space.py",
    "config/sweep_file.py": "test_sweep_plan.py",
    "report/sweep_page.py": "test_sweep_study.py",
    "cli/ranks.py": "test_ranks.py",
    "streams.py": "test_display.py",
    "commands/train/alike.py": "test_ranks.py",
    "commands/train/follow.py": "test_ranks.py",
    "data/loading/share.py": "test_ranks.py",
    "machine/helper.py": "test_parallel.py",
    "machine/launch.py": "test_ranks.py",
    "machine/launched.py": "test_ranks.py",
    "machine/meeting.py": "test_ranks.py",
    "machine/watch.py": "test_presence.py",
    "runs/unwritten.py": "test_ranks.py",
    "commands/groups.py": "test_layer_groups.py",
    "data/table/guess_marks.py": "test_several_labels.py",
    "data/table/ground_truth.py": "test_field_exports.py",
    "data/table/predictions.py": "test_field_exports.py",
    "data/table/voc_xml.py": "test_label_files.py",
    "data/table/xml_events.py": "test_label_files.py",
    "data/indexing/set_aside.py": "test_doubtful_folders.py",
    "commands/survey.py": "test_init.py",
    "commands/prepare.py": "test_train.py",
    "commands/check/output.py": "test_exclude.py",
    "commands/decisions.py": "test_exclude.py",
    "model/deployed.py": "test_export.py",
    "model/onnx_export.py": "test_export.py",
    "model/program_export.py": "test_export.py",
    "model/timm_export.py": "test_export.py",
    "data/images/look.py": "test_images.py",
    "data/loading/decoded.py": "test_decode_once.py",
    "data/quality/finding.py": "test_check.py",
    "experiment/backbone_score.py": "test_rank.py",
    "experiment/build.py": "test_train.py",
    "data/indexing/shards.py": "test_parquet_members.py",
    "data/indexing/check_part.py": "test_field_folders.py",
    "data/indexing/conversions.py": "test_foreign_formats.py",
    "data/indexing/cvat_file.py": "test_published_formats.py",
    "data/indexing/folder_labels.py": "test_split_tables.py",
    "data/indexing/part_from_list.py": "test_split_tables.py",
    "data/indexing/split_lists_above.py": "test_split_tables.py",
    "data/table/cvat_xml.py": "test_published_formats.py",
    "data/table/foreign_images.py": "test_foreign_formats.py",
    "data/table/json_objects.py": "test_table.py",
    "data/table/pixel_tables.py": "test_foreign_formats.py",
    "data/table/ragged_labels.py": "test_published_formats.py",
    "data/table/tool_json.py": "test_published_formats.py",
    "data/table/yolo_txt.py": "test_published_formats.py",
    "experiment/data_options.py": "test_init.py",
    "experiment/features.py": "test_feature_views.py",
    "experiment/model.py": "test_trained_model.py",
    "experiment/read_data.py": "test_train.py",
    "lr_finder/result.py": "test_lr_search.py",
    "lr_finder/trial.py": "test_lr_search.py",
    "machine/cores.py": "test_device.py",
    "machine/provenance.py": "test_stored_features.py",
    "model/architecture.py": "test_timm_catalogue.py",
    "model/backbone.py": "test_classifier.py",
    "model/download.py": "test_weights.py",
    "model/origin.py": "test_weights.py",
    "model/preprocessing.py": "test_transforms.py",
    "model/spec.py": "test_classifier.py",
    "model/tensors.py": "test_weights.py",
    "model/timm_units.py": "test_timm_network.py",
    "model/units.py": "test_layer_groups.py",
    "notes.py": "test_display.py",
    "progress.py": "test_display.py",
    "report/lr_finder.py": "test_lr_find.py",
    "report/scores.py": "test_evaluate.py",
    "report/serve_page.py": "test_serve.py",
    "report/compare_page.py": "test_compare.py",
    "report/templates.py": "test_html_page.py",
    "report/thumbnails.py": "test_labels_page.py",
    "runs/checkpoints.py": "test_resume.py",
    "runs/checksummed.py": "test_resume.py",
    "runs/records.py": "test_fuzz_runs.py",
    "runs/tables.py": "test_directory.py",
    "training/events.py": "test_loop.py",
    "training/features.py": "test_race.py",
    "training/inference.py": "test_evaluate.py",
    "training/norms.py": "test_guards.py",
    "training/state.py": "test_resume.py",
}
NOTHING_TO_TEST = {"__init__.py", "errors.py", "choices.py"}


def names_of_tests():
    """Return what each test file is named after."""
    return {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}


def names_of(path):
    """Return the names that the test file of a module, or of a folder it is in, may bear."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    whole = parts[:-1] if parts[-1] == "__init__" else parts
    return {"_".join(whole[start:end]) for end in range(1, len(whole) + 1) for start in range(end)}


def has_code(path):
    body = tree(path).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


def test_tests_are_named_after_a_module_or_folder():
    known = set().union(*map(names_of, FILES))
    assert names_of_tests() - known <= CLAIMS


def test_every_module_with_code_has_a_test_file():
    own = names_of_tests()
    untested = {
        path.relative_to(PACKAGE).as_posix() for path in FILES if has_code(path) and not names_of(path) & own
    }
    assert untested - NOTHING_TO_TEST <= set(TESTED_IN), (
        "name its test file after it, or say where it is tested"
    )
    assert all((TESTS / name).exists() for name in TESTED_IN.values())
