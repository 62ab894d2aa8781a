"""The templates of HTML pages, which escape every name that is put into them."""

from importlib import resources

import jinja2

from finetune.text import counted


def load_template(name: str) -> jinja2.Template:
    """Load a template of this folder, with those that it extends."""
    folder = resources.files("finetune.report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(name)
