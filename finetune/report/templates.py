"""The templates of HTML pages, which escape every name that is put into them."""

from base64 import b64encode
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable

import jinja2

from finetune.text import counted


def load_template(name: str) -> jinja2.Template:
    """Load a template of this folder, with those that it extends."""
    folder = _folder()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["counted"] = counted
    return environment.get_template(name)


def inline_hash(name: str) -> str:
    """Return what a content security policy calls a script in a page: no other one is run there then."""
    content = _folder().joinpath(name).read_text(encoding="utf-8").removesuffix("\n")
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"


def _folder() -> Traversable:
    return resources.files("finetune.report")
