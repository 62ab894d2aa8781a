"""The docstrings of config keys, read from the source when somebody asks.

pydantic can put them into its fields (`use_attribute_docstrings`), but then every start of a command would
read and parse the source of each section.
"""

import ast
import inspect
import itertools
import textwrap
from functools import cache

from pydantic import BaseModel


@cache
def key_docstrings(section: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of a section, its bases' too, by the field's name."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            found |= _own_docstrings(owner)
    return found


def sections_by_name(base: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return all subclasses of a section, however far below, by the names that a JSON schema has for them."""
    found: dict[str, type[BaseModel]] = {}
    for section in base.__subclasses__():
        found |= {section.__name__: section} | sections_by_name(section)
    return found


def _own_docstrings(section: type[BaseModel]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(definition.body):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(below.value.value))  # type: ignore[attr-defined]
    return found
