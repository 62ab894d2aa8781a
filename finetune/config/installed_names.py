"""Names in a config that are ours or those of an installed package, checked without loading the package."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from finetune.choices import OptimizerName, OwnMonitor, OwnMonitorSetting, OwnPick
from finetune.plugins import Group, installed_names


@dataclass(frozen=True)
class OfOursOrAPackage:
    """One of our names, or of those that installed packages have in a group of entry points."""

    group: Group
    ours: tuple[str, ...]
    prefix: str
    """stands before the names of packages"""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check a value: that of a package is looked for only if it is not ours."""
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the choices of this machine, for editors."""
        return {"enum": list(self.choices()), "type": "string"}

    def choices(self) -> tuple[str, ...]:
        """Return all names: ours first."""
        theirs = (f"{self.prefix}{name}" for name in installed_names(self.group))
        return (*self.ours, *(name for name in theirs if name not in self.ours))

    def _check(self, value: Any) -> str:
        if isinstance(value, str) and (value in self.ours or value in self.choices()):
            return value
        expected = ", ".join(f"'{name}'" for name in self.choices())
        raise PydanticCustomError(
            "literal_error", "expected one of {expected}", {"expected": expected, "group": self.group}
        )


def _names(group: Group, ours: Any, prefix: str = "") -> OfOursOrAPackage:
    return OfOursOrAPackage(group, get_args(ours), prefix)


OptimizerSetting = Annotated[str, _names("finetune.optimizers", OptimizerName)]
PickSetting = Annotated[str, _names("finetune.heuristics", OwnPick)]
MonitorChoice = Annotated[str, _names("finetune.metrics", OwnMonitor, "val_")]
MonitorSetting = Annotated[str, _names("finetune.metrics", OwnMonitorSetting, "val_")]
