import ast
import subprocess
import sys

import pytest
from conftest import write_small_config

NOT_NEEDED = (
    *("torch._dynamo", "torch._inductor", "sympy", "triton", "fastai", "fastcore", "spacy", "pandas"),
    *("matplotlib", "sklearn", "scipy", "IPython", "cleanlab", "onnx", "timm", "finetune.training.loop"),
)


def modules_after(*arguments, then="pass"):
    """Return which of the modules above a command has imported, beside those that torch itself imports.

    `then` is run in its process afterwards.
    """
    program = (
        "import sys, torch.onnx\n"
        "own = set(sys.modules)\n"
        "from finetune.__main__ import main\n"
        f"sys.argv[1:] = {list(map(str, arguments))!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print(sorted({set(NOT_NEEDED)!r} & (sys.modules.keys() - own)), file=sys.stderr)\n"
        f"{then}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_predict_imports_nothing_that_it_has_no_use_for(small_run, images):
    assert modules_after("predict", small_run, images / "cat" / "cat00.png")[-1] == "[]"


def test_groups_are_shown_without_what_trains_them(images, tmp_path):
    assert modules_after("groups", write_small_config(tmp_path, images))[-1] == "[]"


# What fastai imports, and what it asks of it.
OF_FASTAI = {"fastai", "fastcore", "pandas", "matplotlib", "sklearn", "scipy", "finetune.training.loop"}


def test_training_imports_no_compiler(images, tmp_path):
    config = write_small_config(tmp_path, images)
    there = modules_after("train", config, "--run-dir", tmp_path / "run", "--quiet")[-1]
    assert set(ast.literal_eval(there)) == OF_FASTAI


@pytest.mark.slow
def test_torchs_compiler_works_where_torchvision_was_imported_without_it(small_run, images):
    then = (
        "import torch, torchvision\n"
        "assert torchvision.ops.roi_align.__globals__['is_compile_supported']('cpu') in (True, False)\n"
        "box = torch.tensor([[0.0, 0, 4, 4]])\n"
        "assert torchvision.ops.roi_align(torch.ones(1, 3, 8, 8), [box], 2).shape == (1, 3, 2, 2)\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2]\n"
        "print(torch._dynamo.utils.__file__, file=sys.stderr)"
    )
    *_, modules, file = modules_after("predict", small_run, images / "cat" / "cat00.png", then=then)
    assert modules == "[]"
    assert file.endswith("utils.py")


@pytest.mark.slow
def test_a_function_is_left_uncompiled_that_was_imported_without_the_compiler(tmp_path):
    (tmp_path / "asking.py").write_text(
        "import torch\n\n\n@torch.compiler.disable\ndef left(x):\n    return x + 1\n"
    )
    program = (
        "import sys, torch\n"
        "from finetune.imports import import_without_compiler\n"
        "import_without_compiler('asking')\n"
        "import asking\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "compiled = torch.compile(lambda x: asking.left(x), backend='eager')\n"
        "print(asking.left(1), compiled(torch.ones(1)).item())\n"
        "whole = torch.compile(lambda x: asking.left(x), backend='eager', fullgraph=True)\n"
        "try:\n"
        "    whole(torch.ones(1))\n"
        "except torch._dynamo.exc.Unsupported:\n"
        "    print('uncompiled')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["2", "2.0", "uncompiled"]


def run_python(program, folder):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_package_that_is_imported_later_is_whole_once_it_is_used(tmp_path):
    (tmp_path / "heavy.py").write_text("print('imported')\nvalue = 3\n")
    (tmp_path / "asking.py").write_text(
        "try:\n    import heavy\nexcept ImportError:\n    heavy = None\n\n\n"
        "def use():\n    return heavy.value\n"
    )
    program = (
        "import sys\n"
        "from finetune.imports import imported_later\n"
        "with imported_later('heavy'), imported_later('not_installed'):\n"
        "    import asking\n"
        "print('heavy' in sys.modules, asking.use(), asking.use())\n"
        "import heavy\n"
        "print(heavy.value, hasattr(asking.heavy, 'nothing'), 'not_installed' in sys.modules)\n"
    )
    said = "imported False 3 3 3 False False"
    assert sorted(run_python(program, tmp_path)) == sorted(said.split())
    at_once = program.replace("import asking\n", "from heavy import value\n    import asking\n", 1)
    assert run_python(at_once, tmp_path)[0] == "imported"


def test_timm_is_imported_without_wandb_which_it_can_use_later(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("wandb")
    program = (
        "import sys\n"
        "from finetune.model.timm_catalogue import import_timm\n"
        "import_timm()\n"
        "print('wandb' in sys.modules)\n"
        "from timm.utils import summary\n"
        "print(callable(summary.wandb.log), 'wandb' in sys.modules)\n"
    )
    assert run_python(program, tmp_path) == ["False", "True", "True"]
