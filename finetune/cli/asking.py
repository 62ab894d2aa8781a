"""Commands that answer a question about a config's data from the features of its images."""

import json

from finetune.cli.app import (
    app,
    check_output_path,
    check_plot_path,
    display_for,
    print_result,
    reported_errors,
)
from finetune.cli.keys import ConfigCommand
from finetune.cli.options import AsJson, ConfigFile, CurvePlot, DecisionsFile, LabelsPage, Overrides
from finetune.cli.training import announce
from finetune.commands.settings import read_settings
from finetune.machine.quick_imports import quick_torch_imports


@app.command(cls=ConfigCommand)
def labels(
    config: ConfigFile,
    overrides: Overrides = None,
    html: LabelsPage = None,
    csv: DecisionsFile = None,
    as_json: AsJson = False,
) -> None:
    """Find doubtful labels; decide on a page or in a table."""
    with reported_errors():
        display = display_for(as_json)
        settings = read_settings(config, overrides or [], display.bar)[0]
        check_output_path("--html", html)
        check_output_path("--csv", csv)
        announce("labels", config, display, as_json=as_json)
        with quick_torch_imports():
            from finetune.analysis.label_flags import require_cleanlab
            from finetune.commands.labels import output
            from finetune.commands.labels.find import find_doubtful

        require_cleanlab()
        output.check_no_decisions(csv)
        answer = find_doubtful(settings, display)
        if csv is not None:
            output.write_decisions(answer, csv)
        shown = None if html is None else output.write_page(answer, html, display)
        if as_json:
            print_result(json.dumps(answer.to_dict()))
        else:
            output.show_answer(answer, display)
        if html is not None:
            display.say(f"page    {html}, with {shown:,} images")
        if csv is not None:
            display.say(f"table   {csv}; decide in its last column, then data.corrections={csv}")


@app.command(cls=ConfigCommand)
def curve(
    config: ConfigFile,
    overrides: Overrides = None,
    plot: CurvePlot = None,
    as_json: AsJson = False,
) -> None:
    """Say what twice and four times the images would bring."""
    with reported_errors():
        display = display_for(as_json)
        settings = read_settings(config, overrides or [], display.bar)[0]
        check_plot_path(plot)
        announce("curve", config, display, as_json=as_json)
        with quick_torch_imports():
            from finetune.commands import curve as story

        answer = story.curve(settings, display)
        if as_json:
            print_result(json.dumps(answer.to_dict()))
        else:
            story.show_answer(answer, display)
        if plot is not None:
            story.save_plot(answer, plot)
            display.say(f"plot    {plot}")
