"""Read what Datumaro (also CVAT's export of that name) and VoTT write: the classes of what is in each image.

As of COCO, boxes and outlines are not looked at. In Datumaro's format, labels of whole images count alone
where there are any.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.text import counted, shortened

Values = list[dict[str, Any]]


def is_datumaro(value: Mapping[str, Any]) -> bool:
    """Tell whether an object has the parts of Datumaro's format."""
    return {"categories", "items"} <= value.keys() and isinstance(value["items"], list)


def datumaro_rows(value: Mapping[str, Any], *, separator: str) -> tuple[Values, tuple[str, ...]]:
    """Return a row for each image, and what to say of them.

    Args:
        value: the object, with numbers as text.
        separator: what will stand between several classes, which no name may hold.

    Raises:
        ValueError: parts that do not fit each other; the text says which.
    """
    names = _label_names(value)
    if held := next((name for name in names if separator in name), None):
        raise ValueError(f"it looks like Datumaro, and the label {shortened(held)!r} holds {separator!r}")
    items = [item for item in value["items"] if isinstance(item, dict)]
    if len(items) < len(value["items"]):
        raise ValueError("it looks like Datumaro, with items that are no objects")
    whole = any(one.get("type") == "label" for item in items for one in _annotations(item))
    return kept_rows([(_image_of(item), _labels_of(item, names, whole)) for item in items], "Datumaro")


def kept_rows(found: Sequence[tuple[str, list[str]]], tool: str) -> tuple[Values, tuple[str, ...]]:
    """Return a row for each image; where none has two labels, without those that have none.

    Raises:
        ValueError: no image has a label.
    """
    if any(len(labels) > 1 for _, labels in found):
        rows: Values = [{"image": image, "label": labels} for image, labels in found]
        return rows, (f"all labels of an image in the {tool} annotations",)
    kept: Values = [{"image": image, "label": labels[0]} for image, labels in found if labels]
    if not kept:
        raise ValueError(f"it looks like {tool}, and no annotation says what an image is")
    without = len(found) - len(kept)
    left_out = (f"{counted(without, 'image')} without any left out",) if without else ()
    return kept, (f"the label of an image in the {tool} annotations", *left_out)


def _label_names(value: Mapping[str, Any]) -> list[str]:
    labels = value["categories"].get("label") if isinstance(value["categories"], dict) else None
    found = labels.get("labels") if isinstance(labels, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) and "name" in one for one in found):
        raise ValueError("it looks like Datumaro, without categories.label.labels")
    return [str(one["name"]) for one in found]


def _annotations(item: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = item.get("annotations")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _labels_of(item: Mapping[str, Any], names: Sequence[str], whole: bool) -> list[str]:
    """Return the labels of an image: those of all of it, or of what is marked in it."""
    found: dict[str, None] = {}
    for one in _annotations(item):
        number = one.get("label_id")
        if number is None or (whole and one.get("type") != "label"):
            continue
        if not str(number).isdecimal() or int(number) >= len(names):
            raise ValueError(
                f"it looks like Datumaro, and item {shortened(str(item.get('id')))!r} has the label "
                f"{shortened(str(number))}, of which there are {len(names)}"
            )
        found[names[int(number)]] = None
    return list(found)


def _image_of(item: Mapping[str, Any]) -> str:
    image = item.get("image")
    path = image.get("path") if isinstance(image, dict) else None
    return str(path or item.get("id") or "")


def is_vott(value: Mapping[str, Any]) -> bool:
    """Tell whether an object is a project of VoTT."""
    assets = value.get("assets")
    return isinstance(assets, dict) and bool(assets) and all(map(_is_asset, assets.values()))


def _is_asset(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("regions"), list):
        return False
    return isinstance(one.get("asset"), dict) and isinstance(one["asset"].get("name"), str)


def vott_rows(value: Mapping[str, Any]) -> tuple[Values, tuple[str, ...]]:
    """Return a row for each image, the tags of what is marked in it, and what to say of them.

    Raises:
        ValueError: no image has a tag.
    """
    assets = value["assets"].values()
    return kept_rows([(one["asset"]["name"], _tags(one["regions"])) for one in assets], "VoTT")


def _tags(regions: Sequence[Any]) -> list[str]:
    tags = [region.get("tags") for region in regions if isinstance(region, dict)]
    return list(dict.fromkeys(str(tag) for some in tags if isinstance(some, list) for tag in some))
