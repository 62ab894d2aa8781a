"""The space of a sweep: what may stand in it, what is drawn from it, and which keys are there."""

import pytest

from finetune.config.problems import in_order
from finetune.config.read_space import read_space
from finetune.config.search_space import samples_to_values, settings
from finetune.config.yaml_reader import read_yaml


def space_of(text):
    space, mistakes = read_space(read_yaml(f"space:\n{text}", "s.yaml"))
    assert not mistakes, in_order(mistakes)
    return space


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "  seed: 3",
            "s.yaml:2 seed: expected a list of choices, or {log: [low, high]}, uniform or int; got 3",
        ),
        ("  a: {lg: [1, 2]}", "s.yaml:2 a.lg: unknown key; did you mean 'log'?"),
        ("  a: {log: [1, 2], uniform: [1, 2]}", "expected one of log, uniform, int, choices, or a list"),
        ("  a: {log: [0, 1]}", "s.yaml:2 a.log: the lower end has to be above 0, got 0; or write uniform"),
        ("  a: {log: [1e-2, 1e-3]}", "a.log: 0.01 is not below 0.001; the lower end comes first"),
        ("  a: {uniform: [1, x]}", "a.uniform: expected two numbers, [low, high]"),
        ("  a: {uniform: [1, true]}", "a.uniform: expected two numbers, [low, high]"),
        ("  a: {int: [1, 2.5]}", "a.int: expected two whole numbers, [low, high]"),
        ("  a: []", "s.yaml:2 a: expected a list of choices"),
        ("  a: [x, x]", "a: x stands there twice"),
        ("  a: {choices: [x], points: 3}", "a.points: unknown key"),
        ("  a: {log: [1, 2], points: 0}", "a.points: expected a whole number of at least 1"),
        ("  a: {log: [1, 2], as: 'slice(1, 2)'}", "a.as: expected text with x for the number"),
        (
            "  a: [1, 2]\n  b: {int: [1, 2], when: {aa: 1}}",
            "b.when: aa is not in the space; did you mean 'a'?",
        ),
        ("  a: [1, 2]\n  b: {int: [1, 2], when: {a: 3}}", "b.when: a is never 3; it has 1, 2"),
        ("  a: {int: [1, 2]}\n  b: {int: [1, 2], when: {a: 1}}", "b.when: a is no list of choices"),
        (
            "  a: {choices: [1], when: {b: 1}}\n  b: {choices: [1], when: {a: 1}}",
            "s.yaml:2 a.when: b depends on a itself",
        ),
    ],
)
def test_what_a_space_cannot_say_is_refused_with_its_line(written, message):
    _, mistakes = read_space(read_yaml(f"space:\n{written}", "s.yaml"))
    assert message in in_order(mistakes)


def test_drawn_numbers_have_four_digits_and_stay_within_their_range():
    (log, whole) = space_of("  a: {log: [0.00012345, 0.1]}\n  b: {int: [1, 9]}")
    assert log.value(0.0123456789) == 0.01235
    assert log.value(0.00012345) == 0.00012345  # rounded it would be below the lower end
    assert whole.value(3) == 3
    assert isinstance(whole.value(3), int)


def test_choices_keep_their_type_and_a_template_makes_a_slice():
    flag, rate = space_of('  a: [true, 1, [512], null, "1"]\n  b: {log: [1e-4, 1], as: "slice(x/10, x)"}')
    assert [flag.value(label) for label in flag.labels] == [True, 1, [512], None, "1"]
    assert rate.value(0.003) == "slice(0.0003, 0.003)"
    assert rate.sample_of("slice(3e-4,3e-3)") == 0.003
    assert rate.sample_of("slice(1e-5, 3e-3)") is None
    assert flag.sample_of([512]) == "[512]"


CONDITIONAL = """
  optimizer.momentum: {uniform: [0.8, 0.9], when: {optimizer.name: [momentum, nesterov]}}
  optimizer.name: [momentum, nesterov, adam]
"""


def test_a_key_comes_after_those_that_it_depends_on_and_only_with_their_values():
    space = space_of(CONDITIONAL)
    assert [dimension.key for dimension in space] == ["optimizer.name", "optimizer.momentum"]
    samples = {"optimizer.name": "adam", "optimizer.momentum": 0.85}
    assert samples_to_values(space, samples) == {"optimizer.name": "adam"}
    assert samples_to_values(space, samples | {"optimizer.name": "nesterov"}) == {
        "optimizer.name": "nesterov",
        "optimizer.momentum": 0.85,
    }


def test_a_grid_takes_every_setting_once_evenly_on_the_scale():
    space = space_of(CONDITIONAL.replace("[0.8, 0.9],", "[0.8, 0.9], points: 3,"))
    grid = list(settings(space, grid=True))
    assert len(grid) == 2 * 3 + 1
    assert {s["optimizer.momentum"] for s in grid if "optimizer.momentum" in s} == {0.8, 0.85, 0.9}
    (log,) = space_of("  a: {log: [1e-4, 1], points: 5}")
    assert log.grid() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    (whole,) = space_of("  a: {int: [2, 4]}")
    assert whole.grid() == [2, 3, 4]
