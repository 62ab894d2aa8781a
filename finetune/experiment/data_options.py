"""How a data set is to be read, as a config says it."""

from finetune.config.data import DataConfig
from finetune.data.data_layout import FolderOptions
from finetune.data.table import Columns


def table_columns(data: DataConfig) -> Columns:
    """Return what a config says of the columns of a table, and of its text."""
    return Columns(
        **data.columns.model_dump(),
        label_separator=None if data.label_separator == "auto" else data.label_separator,
        whole_cells=data.label_separator is None,
        uncertain=data.uncertain,
        encoding=data.encoding,
    )


def folder_options(data: DataConfig) -> FolderOptions:
    """Return what a config says of the layout of a folder."""
    return FolderOptions(data.layout, data.label_pattern)
