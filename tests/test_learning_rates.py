import pytest

from finetune.optim.learning_rates import LearningRate, parse_lr, spread


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (1e-3, LearningRate(last=1e-3)),
        ("slice(1e-3)", LearningRate(last=1e-3, sliced=True)),
        ("slice(1e-5, 1e-3)", LearningRate(last=1e-3, first=1e-5, sliced=True)),
        (" slice( .01 ,0.1 )", LearningRate(last=0.1, first=0.01, sliced=True)),
    ],
)
def test_a_rate_is_read_in_its_three_forms(written, expected):
    assert parse_lr(written) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("slice(1e-3, 1e-5)", "goes down; the first rate must not exceed the last"),
        ("slice(0, 1e-3)", "a rate must be positive and finite"),
        (0, "a rate must be positive and finite"),
        (-1e-3, "a rate must be positive and finite"),
        (float("nan"), "a rate must be positive and finite"),
        (float("inf"), "a rate must be positive and finite"),
        ("1e-3 ", "is not a rate; write 1e-3"),
        ("slice(1e-5; 1e-3)", "is not a rate; write 1e-3"),
        ("slice(1e-5,\n-3)", r"^slice\(1e-5, -3\) holds the rate -3; a rate must be positive"),
        ("slice(auto/\n0.5, auto)", r"^slice\(auto/ 0.5, auto\) divides by 0.5; "),
        ("slice(a)", "is not a rate; write 1e-3"),
    ],
)
def test_what_is_no_rate_is_refused_with_a_reason(written, message):
    with pytest.raises(ValueError, match=message):
        parse_lr(written)


PRINTED = ("1e-3", "0.0025", "1", "3.123456789e-05", "slice(3e-3)", "slice(1e-5, 1e-3)")
PRINTED += ("auto", "slice(auto)", "slice(auto/100, auto)", "slice(auto/49, auto)")


@pytest.mark.parametrize("written", PRINTED)
def test_a_rate_prints_as_it_can_be_written(written):
    assert str(parse_lr(written if written.startswith(("slice", "auto")) else float(written))) == written


def test_a_plain_rate_is_the_same_for_every_group():
    assert spread(parse_lr(1e-3), 3, divisor=3, spacing="geometric") == [1e-3] * 3


def test_a_slice_of_one_rate_gives_less_to_all_but_the_head():
    assert spread(parse_lr("slice(3e-3)"), 3, divisor=3, spacing="geometric") == [1e-3, 1e-3, 3e-3]
    assert spread(parse_lr("slice(1e-2)"), 2, divisor=10, spacing="geometric") == [1e-3, 1e-2]


def test_a_slice_of_two_rates_goes_by_equal_ratios():
    assert spread(parse_lr("slice(1e-5, 1e-3)"), 3, divisor=3, spacing="geometric") == pytest.approx(
        [1e-5, 1e-4, 1e-3], rel=1e-12
    )


def test_linear_spacing_goes_by_equal_differences():
    assert spread(parse_lr("slice(1e-3, 5e-3)"), 5, divisor=3, spacing="linear") == pytest.approx(
        [1e-3, 2e-3, 3e-3, 4e-3, 5e-3], rel=1e-12
    )


@pytest.mark.parametrize("n_groups", [2, 3, 4, 7])
@pytest.mark.parametrize("spacing", ["geometric", "linear"])
def test_the_ends_of_a_slice_are_exact(n_groups, spacing):
    rates = spread(parse_lr("slice(7e-6, 3e-3)"), n_groups, divisor=3, spacing=spacing)
    assert (rates[0], rates[-1], len(rates)) == (7e-6, 3e-3, n_groups)


def test_geometric_spacing_equals_fastai():
    from fastcore.basics import even_mults

    ours = spread(parse_lr("slice(1e-6, 4e-3)"), 5, divisor=3, spacing="geometric")
    assert ours == pytest.approx(list(even_mults(1e-6, 4e-3, 5)), rel=1e-12)


@pytest.mark.parametrize(
    ("written", "rate", "found"),
    [
        ("auto", LearningRate(1.0, auto=True), 3.16e-3),
        ("slice(auto)", LearningRate(1.0, sliced=True, auto=True), "slice(0.00316)"),
        (
            " slice( auto / 100 , auto ) ",
            LearningRate(1.0, first=0.01, sliced=True, auto=True),
            "slice(3.16e-5, 0.00316)",
        ),
        (1e-2, LearningRate(1e-2), 3.16e-3),
        ("slice(1e-5, 1e-3)", LearningRate(1e-3, first=1e-5, sliced=True), "slice(3.16e-5, 0.00316)"),
    ],
)
def test_a_found_rate_keeps_the_form_of_what_was_written(written, rate, found):
    assert parse_lr(written) == rate
    assert rate.peaking_at(0.00316227766).written == found
    assert parse_lr(rate.written) == rate


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("slice(auto/0.5, auto)", "must not exceed the last"),
        ("slice(auto/0, auto)", "must not exceed the last"),
        ("slice(auto, auto)", "is not a rate"),
        ("slice(1e-5, auto)", "is not a rate"),
        ("auto/10", "is not a rate"),
        ("Auto", "is not a rate"),
    ],
)
def test_other_forms_of_auto_are_refused(written, message):
    with pytest.raises(ValueError, match=message):
        parse_lr(written)


def test_the_two_rates_of_a_slice_may_be_equal():
    rate = parse_lr("slice(1e-3, 1e-3)")
    assert rate == LearningRate(1e-3, first=1e-3, sliced=True)
    assert str(rate) == "slice(1e-3, 1e-3)"
    for spacing in ("geometric", "linear"):
        assert spread(rate, 4, divisor=3, spacing=spacing) == [1e-3] * 4
    with pytest.raises(ValueError, match="goes down"):
        parse_lr("slice(1.0001e-3, 1e-3)")


def test_a_rate_to_be_found_may_be_the_same_for_the_first_group():
    rate = parse_lr("slice(auto/1, auto)")
    assert rate == LearningRate(1.0, first=1.0, sliced=True, auto=True)
    assert str(rate) == "slice(auto/1, auto)"
    assert str(rate.peaking_at(0.00316227766)) == "slice(0.00316, 0.00316)"
    with pytest.raises(ValueError, match="must not exceed the last"):
        parse_lr("slice(auto/0.9999, auto)")


def test_a_slice_over_a_single_group_is_its_last_rate():
    assert spread(parse_lr("slice(1e-5, 1e-3)"), 1, divisor=3, spacing="geometric") == [1e-3]
    assert spread(parse_lr("slice(1e-3)"), 1, divisor=3, spacing="linear") == [1e-3]
