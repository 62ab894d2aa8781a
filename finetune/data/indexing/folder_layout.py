"""Describe what folders of images were taken for."""

from collections import Counter
from collections.abc import Mapping

from finetune.data.data_layout import HERE, FolderOptions, Layout, LayoutKind, LeftOut
from finetune.data.indexing.class_folders import FoundParts
from finetune.data.indexing.part import Part
from finetune.text import counted, quoted

_LISTED = 20


def folder_layout(found: FoundParts, options: FolderOptions) -> Layout:
    """Return what a folder was taken for.

    Args:
        found: its splits, or itself.
        options: how it was read.
    """
    beside = [LeftOut(f"folder {name}", why, 1) for name, why in found.unused.items()]
    return Layout(
        _kind(found, options),
        {part.split: (part.folder or HERE,) for part in found.parts},
        left_out=(*(one for part in found.parts for one in _left_out(part)), *beside),
        remark=_remark(found, options),
        notes=_notes(found, options),
    )


def _kind(found: FoundParts, options: FolderOptions) -> LayoutKind:
    if options.label_pattern is not None:
        return "file names"
    if options.layout == "groups":
        return "groups of class folders"
    if options.layout == "classes/groups":
        return "class folders of groups"
    if options.layout == "innermost":
        return "innermost folders"
    return "split folders" if any(part.folder for part in found.parts) else "class folders"


def _remark(found: FoundParts, options: FolderOptions) -> str:
    if options.label_pattern is not None:
        return f"labels by {options.label_pattern}"
    if options.layout in ("groups", "classes/groups"):
        groups = dict.fromkeys(group for part in found.parts for group in part.groups.values())
        return f"groups {quoted(groups)}"
    return ""


def _notes(found: FoundParts, options: FolderOptions) -> tuple[str, ...]:
    """Say what classes were taken from, where a look at the folders does not show it."""
    listed = (
        f"classes of {part.split} by {part.folder}/{part.listed}" for part in found.parts if part.listed
    )
    plain = options.layout not in ("groups", "classes/groups")
    within = sum(_nested(part) for part in found.parts) if plain else 0
    nested = f"{counted(within, 'folder')} within classes count as theirs (data.layout=innermost: as classes)"
    return (*listed, nested) if within else (*listed,)


def _nested(part: Part) -> int:
    """Return how many folders lie within classes that have images in several folders."""
    folders = Counter(part.class_of.values())
    return sum(path != label and folders[label] > 1 for path, label in part.class_of.items())


def _refused(members: Mapping[str, str]) -> list[LeftOut]:
    """Return the members of an archive that were refused, one by one, or of many the reasons."""
    if len(members) <= _LISTED:
        return [LeftOut(f"member {name}", why, 1) for name, why in members.items()]
    return [LeftOut("members", why, number) for why, number in Counter(members.values()).items()]


def _left_out(part: Part) -> list[LeftOut]:
    """Return what was passed over in a part."""
    where = f" in {part.folder}" if part.folder else ""
    ignored = [
        LeftOut(f"{kind if ' ' in kind else f'files {kind}'}{where}", "not named like an image", number)
        for kind, number in sorted(part.found.ignored.items())
    ]
    links = [LeftOut(f"link {name}", why, 1) for name, why in part.found.links.items()]
    links += _refused(part.found.refused)
    outside = len(part.found.images) - len(part.labels) - part.aside
    lost = [LeftOut(f"images{where}", part.without_label, outside)] if outside else []
    lost += [LeftOut(f"images{where}", "masks of others", part.aside)] if part.aside else []
    return [*lost, *links, *ignored]
