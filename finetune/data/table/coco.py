"""Read annotations in the format of COCO as labels: the categories of what was marked in each image.

Boxes and outlines are not looked at: an image has the class, or the classes, of all that is in it. Where none
has two, each has one class, and images without any are left out, because they are of no class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.text import counted, shortened

Values = list[dict[str, Any]]


def is_coco(value: Mapping[str, Any]) -> bool:
    """Tell whether an object has the parts of COCO."""
    return {"images", "annotations"} <= value.keys()


def coco_rows(value: Mapping[str, Any], *, separator: str) -> tuple[Values, tuple[str, ...]]:
    """Return a row for each image, as the objects of a list would be, and what to say of them.

    Args:
        value: the object, with numbers as text.
        separator: what will stand between several classes, which no name may hold.

    Raises:
        ValueError: it has no categories, or parts that do not fit each other; the text says which.
    """
    files = _by_id(value, "images", "file_name")
    names = _by_id(value, "categories", "name")
    labels: dict[str, set[str]] = {image: set() for image in files}
    for number, annotation in enumerate(_objects(value, "annotations"), start=1):
        image, category = (str(annotation.get(key)) for key in ("image_id", "category_id"))
        if image not in labels or category not in names:
            what = f"image {image}" if image not in labels else f"category {category}"
            raise ValueError(
                f"it looks like COCO, and annotation {number} is of {shortened(what)}, which is not in it"
            )
        labels[image].add(names[category])
    if not any(labels.values()):
        raise ValueError("it looks like COCO, and no annotation says what an image is")
    order = list(dict.fromkeys(names.values()))
    rows = [
        {"image": files[image], "label": [n for n in order if n in found]} for image, found in labels.items()
    ]
    if any(len(found) > 1 for found in labels.values()):
        if held := next((name for name in order if separator in name), None):
            raise ValueError(f"it looks like COCO, and the category {shortened(held)!r} holds {separator!r}")
        return rows, ("all categories of the COCO annotations of an image",)
    kept = [{"image": row["image"], "label": row["label"][0]} for row in rows if row["label"]]
    without = len(rows) - len(kept)
    left_out = (f"{counted(without, 'image')} without any left out",) if without else ()
    return kept, ("the category of the COCO annotations of an image", *left_out)


def _by_id(value: Mapping[str, Any], part: str, key: str) -> dict[str, str]:
    """Return a text of each object of a part by its `id`."""
    found: dict[str, str] = {}
    for number, one in enumerate(_objects(value, part), start=1):
        own, text = one.get("id"), one.get(key)
        if own is None or not isinstance(text, str) or not text.strip():
            raise ValueError(f"it looks like COCO, and {part} {number} has no id or no {key}")
        if found.setdefault(str(own), text) != text:
            raise ValueError(f"it looks like COCO, and two of its {part} have the id {shortened(str(own))}")
    return found


def _objects(value: Mapping[str, Any], part: str) -> Sequence[Mapping[str, Any]]:
    objects = value.get(part)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise ValueError(f"it looks like COCO, without a list of {part}")
    return objects
