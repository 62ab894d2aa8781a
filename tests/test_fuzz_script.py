import importlib.util

from conftest import ROOT

_SPEC = importlib.util.spec_from_file_location("fuzz", ROOT / "scripts" / "fuzz.py")
fuzz = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fuzz)


def test_what_fails_is_counted_with_the_command_that_repeats_it():
    tally = fuzz.Tally()
    for line in (
        "tests/test_fuzz_tables.py::test_a_table[2000] PASSED              [ 10%]\n",
        "tests/test_fuzz_runs.py::test_a_run[True-600] FAILED              [ 20%]\n",
        "FUZZ_SEED=7\n",
        "FAILED tests/test_fuzz_runs.py::test_a_run[True-600] - AssertionError\n",
    ):
        tally.read(line, 7)
    assert tally.passed == 1
    assert tally.failed == [
        "FUZZ_SEED=7 python -m pytest -m slow 'tests/test_fuzz_runs.py::test_a_run[True-600]'"
    ]
