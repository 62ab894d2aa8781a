"""Commands that choose: a backbone for a config, or the whole config."""

import json

from finetune.cli.app import app, display_for, print_result, reported_errors
from finetune.cli.keys import ConfigCommand
from finetune.cli.options import (
    AsJson,
    BackbonesOrOverrides,
    ConfigFile,
    ConfigToWrite,
    DataToRead,
    DownloadWeights,
    JudgeOnVal,
    Minutes,
    Overrides,
    Quiet,
    RunDir,
    WriteBackbone,
)
from finetune.cli.training import announce, check_has_file, defaults_notes
from finetune.commands.settings import read_settings, require_data
from finetune.machine.quick_imports import quick_torch_imports
from finetune.text import printable


@app.command(cls=ConfigCommand)
def rank(
    config: ConfigFile,
    arguments: BackbonesOrOverrides = None,
    download: DownloadWeights = False,
    val: JudgeOnVal = False,
    write: WriteBackbone = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rank pretrained backbones on the images of CONFIG."""
    with reported_errors():
        display = display_for(as_json, quiet=quiet)
        overrides = [argument for argument in arguments or [] if "=" in argument]
        names = [argument for argument in arguments or [] if "=" not in argument]
        settings = read_settings(config, overrides, display.bar)[0]
        from finetune.config.model_editor import check_model, write_model

        if write:
            check_has_file(config)
            check_model(config)
        announce("rank", config, display, as_json=as_json)
        display.show(defaults_notes(config))
        with quick_torch_imports():
            from finetune.commands.rank import rank as story
            from finetune.commands.rank.ranking import show

        ranking = story.rank(settings, names, download=download, on_val=val, display=display)
        show(ranking, display)
        if as_json:
            print_result(json.dumps(ranking.to_list()))
        elif quiet:
            print_result(ranking.best.arch)
        if write:
            write_model(config, ranking.best.arch, ranking.best.weights)
            display.say(f"written to {config}: model.arch {ranking.best.arch}")


@app.command()
def auto(
    data: DataToRead,
    overrides: Overrides = None,
    minutes: Minutes = 10.0,
    output: ConfigToWrite = None,
    run_dir: RunDir = None,
    download: DownloadWeights = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose everything for a folder or table of images, and train.

    KEY=VALUE says how the data are to be read where that cannot be seen: data.columns.label=breed.
    """
    with reported_errors(prints_a_log=True):
        require_data(data)
        display = display_for(as_json, quiet=quiet)
        announce("auto", data, display, as_json=as_json)
        with quick_torch_imports():
            from finetune.commands.auto.train import AutoOptions
            from finetune.commands.auto.train import auto as story

        options = AutoOptions(output, run_dir, minutes, download=download)
        found = story(data, options, display, overrides or [])
        if as_json:
            print_result(json.dumps(found.to_dict()))
        elif quiet:
            print_result(printable(str(found.outcome)))
