import json

import sample_mutants

NAMES = [f"finetune.text.x_counted__mutmut_{number}" for number in range(100)]


def test_a_seed_draws_the_same_mutants_in_whatever_order_they_come():
    drawn = sample_mutants.sample(NAMES, 10, 3)
    assert len(set(drawn)) == 10
    assert drawn == sample_mutants.sample(reversed(NAMES), 10, 3)
    assert drawn != sample_mutants.sample(NAMES, 10, 4)


def test_where_there_are_fewer_all_are_drawn():
    assert sample_mutants.sample(NAMES[:5], 10, 0) == NAMES[:5]


def test_names_are_read_from_the_files_of_all_modules(tmp_path):
    for name in ("a", "b"):
        path = tmp_path / "finetune" / name / f"{name}.py.meta"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"exit_code_by_key": {f"{name}__mutmut_1": None}}))
    assert sorted(sample_mutants.mutant_names(tmp_path)) == ["a__mutmut_1", "b__mutmut_1"]
