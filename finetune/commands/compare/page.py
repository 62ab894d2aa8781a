"""A comparison of runs as one HTML page."""

from collections.abc import Sequence

from finetune.commands.compare.compare import ComparedRuns, Disputed, OtherRun
from finetune.commands.compare.show import paired_line, short_names
from finetune.report.compare_page import ComparedRow, Picture, PictureGroup, RunPair, compare_page
from finetune.report.plot.runs import RunCurve


def comparison_page(compared: ComparedRuns) -> str:
    """Render a comparison that was made with pictures."""
    names = short_names(compared.runs)
    together = list(zip(names, compared.runs, compared.best, compared.histories, strict=True))
    rows = [
        ComparedRow(name, run, best["accuracy"], best["map"], best["loss"], len(history))
        for name, run, best, history in together
    ]
    curves = [
        RunCurve(
            name,
            losses=[row.val_loss for row in history],
            scores=[row.val_map if compared.multilabel else row.val_accuracy for row in history],
        )
        for name, *_, history in together
    ]
    pairs = [_pair(names[0], name, other) for name, other in zip(names[1:], compared.others, strict=True)]
    return compare_page(rows, curves, pairs, score_name="mAP" if compared.multilabel else "accuracy")


def _pair(first: str, this: str, other: OtherRun) -> RunPair:
    scores = other.scores
    return RunPair(
        first=first,
        this=this,
        config=other.config,
        data=other.data,
        verdict=(
            f"Not compared image by image: {other.why_not}."
            if scores is None
            else f"O{paired_line(scores, first, this)[1:]}."
        ),
        groups=[
            _group(f"Right in {name} alone", len(images), [p for p in other.pictures if p.first_right == own])
            for name, images, own in ((first, other.first_right, True), (this, other.this_right, False))
        ],
    )


def _group(title: str, number: int, pictures: Sequence[Disputed]) -> PictureGroup:
    return PictureGroup(title, number, list(map(_picture, pictures)))


def _picture(one: Disputed) -> Picture:
    right = (one.first_right, not one.first_right)
    answers = list(zip((one.first, one.this), one.certainties, right, strict=True))
    return Picture(one.name, answers, one.thumbnail)
