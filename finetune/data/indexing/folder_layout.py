"""Describe what folders of images were taken for."""

from collections.abc import Sequence

from finetune.data.data_layout import HERE, Layout, LeftOut
from finetune.data.indexing.class_folders import Part


def folder_layout(parts: Sequence[Part], unused: Sequence[str]) -> Layout:
    """Return what a folder was taken for.

    Args:
        parts: its splits, or itself.
        unused: folders beside those of its splits.
    """
    beside = [LeftOut(f"folder {name}", "is named like no split", 1) for name in unused]
    return Layout(
        "split folders" if any(part.folder for part in parts) else "class folders",
        {part.split: (part.folder or HERE,) for part in parts},
        left_out=(*(one for part in parts for one in _left_out(part)), *beside),
    )


def _left_out(part: Part) -> list[LeftOut]:
    """Return what was passed over in a part."""
    where = f" in {part.folder}" if part.folder else ""
    ignored = [
        LeftOut(f"{kind if ' ' in kind else f'files {kind}'}{where}", "not named like an image", number)
        for kind, number in sorted(part.found.ignored.items())
    ]
    links = [LeftOut(f"link {name}", "links to folders are not followed", 1) for name in part.found.links]
    outside = sum(part.class_of(name) is None for name in part.found.images)
    lost = [LeftOut(f"images{where}", "outside the class folders", outside)] if outside else []
    return [*lost, *links, *ignored]
