"""Write docs/dependencies.md: what is installed with the package and each extra, and under which licences.

Run it in an environment with all extras. `make sbom` writes the bill of materials of an environment in a
format for programs, CycloneDX.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
_ASIDE = {"test", "docs", "dev", "offline"}

_HEAD = """\
# What is installed, and under which licences

From the metadata of the packages themselves, written by `python scripts/dependencies.py`; what they require
in turn is not listed. `make sbom`, or `pip install cyclonedx-bom && cyclonedx-py environment` in your own
environment, writes the whole bill of materials (SBOM) as CycloneDX. finetune itself is Apache-2.0.

| package | range | for | licence |
|---|---|---|---|
"""


def main() -> None:
    """Write the page."""
    table = "".join(f"{row} {licence(name)} |\n" for name, row in required().items())
    PAGE.write_text(_HEAD + table, encoding="utf-8")


def required() -> dict[str, str]:
    """Return the row of each package that a user installs, by its name, up to its licence."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [(line, "always") for line in project["dependencies"]]
    for extra, lines in project["optional-dependencies"].items():
        needed += [(line, f"extra `{extra}`") for line in lines if extra not in _ASIDE]
    rows: dict[str, tuple[str, list[str]]] = {}
    for line, reason in needed:
        requirement = Requirement(line)
        rows.setdefault(requirement.name, (str(requirement.specifier), []))[1].append(reason)
    return {
        name: f"| {name} | {specifier} | {', '.join(reasons)} |"
        for name, (specifier, reasons) in rows.items()
        if not name.startswith("finetune")
    }


def licence(name: str) -> str:
    """Return the licence of an installed package in a few words."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    expression = about.get("License-Expression")
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier", [])
        if line.startswith("License ::")
    ]
    written = (about.get("License") or "").strip().splitlines()
    first = written[0] if written and len(written[0]) < 60 else ""
    return re.sub(r"\s+", " ", expression or ", ".join(classifiers) or first or "see the package")


if __name__ == "__main__":
    main()
