"""What a search for a learning rate came to: on screen, as a picture, and as an error."""

from dataclasses import replace
from pathlib import Path

from finetune.display import Display
from finetune.errors import DivergenceError
from finetune.lr_finder.result import LrFindResult
from finetune.machine.files import write_bytes
from finetune.report.plot import CurvePlot, Marker, RacePoint, draw_png
from finetune.text import counted


def show_found(found: LrFindResult, display: Display) -> None:
    """Show the table of heuristics, the race if there was one, and what was picked."""
    display.say("")
    reasons = {suggestion.reason for suggestion in found.suggestions}
    if len(reasons) == 1 and all(suggestion.lr is None for suggestion in found.suggestions):
        display.say(f"no heuristic answers: {reasons.pop()}")
    else:
        display.table(("heuristic", "rate", *(("spread",) if found.repeated else ()), ""), found.rows())
    if found.agreement:
        display.say(f"the suggestions differ by a factor of about {_factor(found.agreement)}")
    if found.divergence is not None:
        display.say(f"the loss diverges above {found.divergence:.2g}")
    if found.candidates:
        display.say("")
        display.table(
            ("rate", "val loss", "±", "accuracy", "suggested by", ""),
            found.league_rows(),
            title=f"race, {counted(found.race_steps, 'step')} each",
            least_important=("suggested by", "±", "accuracy"),
        )
        for note in found.league_notes():
            display.say(note)
    display.say("")
    if found.lr is not None:
        display.say(f"picked {found.lr:.3g} ({found.by}) in {found.seconds:.1f} s")


def refusal(found: LrFindResult) -> DivergenceError:
    """Return the error that no rate can be answered for."""
    first = f"No usable rate for stage {found.stage}: {found.refusal}."
    if found.league is not None and found.league.chance_loss is not None:
        return DivergenceError(
            f"{first}\nNothing was learned in {counted(found.race_steps, 'step')}: look at images and labels "
            "(finetune check), start from pretrained weights, try more lr_finder.race_steps, or write a rate."
        )
    race = "" if found.pick == "race" else "lr_finder.pick=race, "
    return DivergenceError(
        f"{first}\nLook at the curve; try {race}a wider lr_finder.start and end, more lr_finder.steps or "
        "repeats, or write a rate."
    )


def _factor(decades: float) -> str:
    """Write a ratio as people say it: with two digits, `3.2` or `1,600`."""
    factor = 10**decades
    return f"{factor:.1f}" if factor < 10 else f"{float(f'{factor:.2g}'):,.0f}"


def curve_plot(found: LrFindResult) -> CurvePlot:
    """Return the curve with every suggestion, the pick and the rate of divergence marked."""
    markers = [Marker(s.heuristic, s.lr) for s in found.suggestions if s.lr is not None]
    if found.divergence is not None:
        markers.append(Marker("divergence", found.divergence))
    if found.lr is not None and found.candidates:
        markers.append(Marker("race", found.lr, picked=True))
    elif found.lr is not None:
        markers = [replace(m, picked=found.is_pick(m.label)) for m in markers]
    race = [
        RacePoint(candidate.lr, candidate.val_loss, candidate.standard_error or 0.0)
        for candidate in found.candidates
        if candidate.val_loss is not None
    ]
    curve, title = found.curve, f"range test, stage {found.stage}"
    return CurvePlot(title, curve.lrs, curve.losses, curve.smoothed(), markers, race)


def write_plot(found: LrFindResult, path: Path) -> None:
    """Write the curve as a PNG file.

    Raises:
        ResourceError: the file cannot be written.
    """
    write_bytes(path, draw_png(curve_plot(found)))
