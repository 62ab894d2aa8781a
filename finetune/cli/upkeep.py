"""Commands about what finetune keeps on a machine."""

import json

from finetune.cli.app import app, display_for, print_result, reported_errors
from finetune.cli.options import AsJson, ClearCache, TrimCache
from finetune.errors import ConfigError


@app.command()
def cache(
    trim: TrimCache = None,
    clear: ClearCache = False,
    as_json: AsJson = False,
) -> None:
    """Show the cache of scans and features, or empty it."""
    with reported_errors():
        from finetune.commands import cache as story
        from finetune.machine.cache import parse_size

        if clear and trim is not None:
            raise ConfigError("--clear removes everything, --trim all but a size.\nLeave out one of them.")
        removed = 0
        if trim is not None:
            try:
                most_bytes = parse_size(trim)
            except ValueError as error:
                raise ConfigError(f"--trim: {error}\nFor instance: finetune cache --trim 1GB") from None
            removed = story.trim_cache(most_bytes)
        elif clear:
            removed = story.clear_cache()
        report = story.look_at_cache(removed)
        if as_json:
            print_result(json.dumps(report.to_dict()))
        else:
            story.show_cache(report, display_for(False), changed=clear or trim is not None)
