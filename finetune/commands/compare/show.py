"""A comparison of runs as a person reads it on screen."""

from collections.abc import Sequence
from pathlib import Path

from finetune.analysis.paired import LEVEL, PairedComparison
from finetune.commands.compare.compare import ComparedRuns, OtherRun
from finetune.display import Display
from finetune.text import counted, printable

_LISTED = 20  # images of which one model alone is right; epochs


def show_comparison(compared: ComparedRuns, display: Display) -> None:
    """Show what differs, the scores side by side, and whether they differ by more than chance."""
    names = short_names(compared.runs)
    rows = [
        (name, f"{best['accuracy']:.2%}", f"{best['map']:.4f}", f"{best['loss']:.4f}", len(history))
        for name, best, history in zip(names, compared.best, compared.histories, strict=True)
    ]
    display.table(("run", "accuracy", "mAP", "loss", "epochs"), rows, paths=("run",))
    show_curves(compared, names, display)
    for name, other in zip(names[1:], compared.others, strict=True):
        display.say(f"\n{name} beside {names[0]}")
        if other.config:
            display.table(("key", names[0], name), list(other.config))
        else:
            display.say("their configs are the same")
        for line in other.data or ["their images are the same"]:
            display.say(line)
        show_paired(other, names[0], name, display)


def show_curves(compared: ComparedRuns, names: Sequence[str], display: Display) -> None:
    """Show the validation accuracy of all runs, epoch by epoch."""
    longest = max(map(len, compared.histories))
    rows = [
        (epoch + 1, *(f"{h[epoch].val_accuracy:.2%}" if epoch < len(h) else "–" for h in compared.histories))
        for epoch in range(longest)
    ]
    shown = rows if longest <= _LISTED else [rows[i * (longest - 1) // (_LISTED - 1)] for i in range(_LISTED)]
    display.say("")
    display.table(("accuracy after epoch", *names), shown)


def show_paired(other: OtherRun, first: str, this: str, display: Display) -> None:
    """Show how the two answer for the images that both validate on."""
    scores = other.scores
    if scores is None:
        display.say(f"not compared image by image: {other.why_not}")
        return
    display.say(paired_line(scores, first, this))
    for whose, images in ((first, other.first_right), (this, other.this_right)):
        if images:
            more = f" and {len(images) - _LISTED:,} more (--json lists all)" if len(images) > _LISTED else ""
            display.say(f"right in {whose} alone: {', '.join(map(printable, images[:_LISTED]))}{more}")


def paired_line(scores: PairedComparison, first: str, this: str) -> str:
    """Say how many images one of two runs alone has right, and whether that is more than chance."""
    ahead = f"{100 * scores.difference:+.1f} points ({100 * scores.low:+.1f} to {100 * scores.high:+.1f})"
    verdict = "more than chance" if scores.p_value < 1 - LEVEL else "no more than chance would do"
    return (
        f"of {counted(scores.images, 'image')} that both validate on {scores.first_only:,} are right in "
        f"{first} alone, {scores.second_only:,} in {this} alone: {ahead}, p = {scores.p_value:.2g}, {verdict}"
    )


def short_names(runs: Sequence[str]) -> list[str]:
    """Return the names of the runs' folders, or whole paths where these are the same."""
    names = [Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)
