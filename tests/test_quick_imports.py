import gc

import pytest

from finetune.machine.quick_imports import quick_imports


def test_the_collector_rests_while_modules_are_imported_and_no_longer():
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_works_again_after_an_import_that_failed():
    with pytest.raises(ImportError), quick_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
