"""The story of `finetune optimizers`: say of each how it moves the weights and what can be set of it."""

import textwrap
from dataclasses import asdict
from typing import Any

from finetune.config.yaml_writer import write_value
from finetune.display import Display
from finetune.optim.installed import rules_of_packages
from finetune.optim.update_rules import UPDATE_RULES, UpdateRule

_SYMBOLS = (
    "w are the weights, g is the gradient, a the rate, b or b1 the momentum, b2 stands for beta2 and ε for "
    "eps; m, s and u start from 0. Each can stand at optimizer.name in a config, its settings beside it."
)


def list_optimizers() -> list[dict[str, Any]]:
    """Return the optimizers as `optimizers --json` documents them."""
    return [
        {"name": name, **asdict(rule), "settings": rule.settings.given()}
        for name, rule in (*UPDATE_RULES.items(), *rules_of_packages())
    ]


def show_optimizers(display: Display) -> None:
    """Show each optimizer in two lines: its update; its settings with their defaults, and its source."""
    rows = [
        row
        for name, rule in (*UPDATE_RULES.items(), *rules_of_packages())
        for row in ((name, rule.update), ("", f"{_settings(rule)} ({rule.source})"))
    ]
    display.table(("optimizer", "update; settings and their defaults (source)"), rows)
    display.say("\n" + textwrap.fill(_SYMBOLS, min(display.width, 100)))


def _settings(rule: UpdateRule) -> str:
    given = rule.settings.given()
    return ", ".join(f"{name}: {write_value(value)}" for name, value in given.items()) or "no settings"
