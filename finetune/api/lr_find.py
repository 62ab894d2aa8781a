"""`finetune.lr_find`: find a learning rate from Python, and look at its curve."""

import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.api.settings import ConfigSource, read_overrides, read_settings
from finetune.api.terms import in_python, python_terms
from finetune.choices import Heuristic
from finetune.commands.lr_find import Answer
from finetune.commands.lr_find import lr_find as lr_find_command
from finetune.commands.settings import choose_stage
from finetune.display import Display
from finetune.errors import DivergenceError
from finetune.lr_finder.heuristics import Curve
from finetune.report.lr_finder import curve_plot, refusal, show_found
from finetune.report.plot import draw_png


def lr_find(
    config: ConfigSource,
    *,
    stage: str | None = None,
    run: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    quiet: bool = False,
    **keys: object,
) -> "LrFind":
    """Find the learning rate of a stage, and train nothing.

    Args:
        config: what `finetune.train` takes.
        stage: name of the stage; by default the first, or with `run` the last.
        run: a run whose best weights to start from, in place of the pretrained ones.
        overrides: values by dotted key, as for `finetune.train`.
        quiet: print warnings alone.
        **keys: values by key with two underscores for each dot.

    Raises:
        FinetuneError: whatever the command `finetune lr-find` reports; that no rate was found is reported by
            the result's `lr`, so that its curve can be looked at.
    """
    display = Display(sys.stdout, quiet=quiet)
    with python_terms():
        settings, _ = read_settings(config, read_overrides(overrides, keys, options=_OPTIONS))
        chosen = choose_stage(settings, stage, from_run=run is not None)
        answer = lr_find_command(
            settings, chosen, run_dir=None if run is None else Path(run), display=display
        )
        show_found(answer.found, display)
    return LrFind(answer)


_OPTIONS = tuple(lr_find.__kwdefaults__ or ())


class LrFind:
    """What a search for a learning rate came to; a notebook shows its curve."""

    def __init__(self, answer: Answer) -> None:
        """Wrap what the command found."""
        self._answer, self._found = answer, answer.found

    @property
    def lr(self) -> float:
        """The peak learning rate of the head.

        Raises:
            DivergenceError: no usable rate was found.
        """
        if self._found.lr is None:
            raise self._refusal()
        return self._found.lr

    @property
    def written(self) -> float | str:
        """What the stage's `lr` should say: the rate, or the slice that reaches it: `slice(1e-5, 1e-3)`.

        Raises:
            DivergenceError: no usable rate was found.
        """
        if self._answer.lr is None:
            raise self._refusal()
        return self._answer.lr.written

    @property
    def by(self) -> str:
        """Which heuristic or race found the rate, or why there is none."""
        return self._found.by

    @property
    def stage(self) -> str:
        """The stage that was swept."""
        return self._found.stage

    @property
    def suggestions(self) -> dict[Heuristic, float | None]:
        """The rate that each heuristic reads from the curve; None where it refuses."""
        return {suggestion.heuristic: suggestion.lr for suggestion in self._found.suggestions}

    @property
    def curve(self) -> Curve:
        """The range test: `lrs` and `losses` (N,), and `smoothed()`."""
        return self._found.curve

    def plot(self) -> Image.Image:
        """Draw the curve with every suggestion; `.save("curve.png")` writes it.

        Raises:
            DivergenceError: the sweep has fewer than two points.
        """
        return Image.open(io.BytesIO(self._png()))

    def to_dict(self) -> dict[str, Any]:
        """Return everything that `finetune lr-find --json` prints."""
        return self._answer.to_dict()

    def __repr__(self) -> str:
        lr = "no usable rate" if self._found.lr is None else f"lr {self._found.lr:.3g}"
        return f"<finetune.LrFind stage {self.stage}: {lr} ({self.by})>"

    def _repr_png_(self) -> bytes | None:
        return self._png() if len(self.curve.lrs) > 1 else None

    def _png(self) -> bytes:
        if len(self.curve.lrs) < 2:
            raise self._refusal()
        return draw_png(curve_plot(self._found))

    def _refusal(self) -> DivergenceError:
        return DivergenceError(in_python(str(refusal(self._found))))
