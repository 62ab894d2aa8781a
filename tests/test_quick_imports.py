import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.imports import quick_imports


def test_the_collector_rests_while_modules_are_imported_and_no_longer():
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_imported_is_frozen_in_a_program_that_has_frozen_what_it_began_with():
    gc.unfreeze()  # another test may have run the program
    gc.collect()
    with quick_imports():
        made = [[] for _ in range(1000)]
    assert gc.get_freeze_count() == 0
    try:
        gc.freeze()
        before = gc.get_freeze_count()
        with quick_imports():
            made += [[] for _ in range(1000)]
        assert gc.get_freeze_count() >= before + 1000
    finally:
        gc.unfreeze()


def test_the_collector_works_again_after_an_import_that_failed():
    with pytest.raises(ImportError), quick_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_a_torchvision_of_another_torch_is_named_in_two_lines(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "models"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 2), done.stderr
    assert "does not fit torch" in done.stderr
    assert "operator torchvision::nms does not exist" in done.stderr
