import gc

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
