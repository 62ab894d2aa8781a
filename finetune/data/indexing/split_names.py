"""Which names of folders are those of splits: by themselves, or but for what they have in common."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from finetune.choices import Split, split_of
from finetune.errors import DataError
from finetune.text import quoted

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of `seg_train`, `train2017`, `trainImages`
_SET = re.compile(r"[-_ ]?set(?![a-z])", re.IGNORECASE)  # which one of the names may have, and others not


def splits_by_name(names: Sequence[str]) -> dict[str, Split]:
    """Return those of some folders that are named after a split, with their split.

    Where none is, those that are but for a beginning and an end that they share: `seg_train` and `seg_test`,
    `train2017` and `val2017`.
    """
    whole = {name: split for name in names if (split := split_of(name)) is not None}
    if whole:
        return whole
    alike = _splits_with_affixes(names)
    return alike if "train" in alike.values() else {}


def split_groups(names: Sequence[str]) -> list[dict[str, Split]]:
    """Return the names that are those of splits, with one to train on among others, by what they share.

    `train` and `test` are a group, and so are `red_train` and `red_val` beside `blue_train` and `blue_val`.
    """
    whole = {name: split for name in names if (split := split_of(name)) is not None}
    whole = {name: split for name, split in whole.items() if not (name[-1].isdigit() and name[:-1] in whole)}
    groups = [whole, *_groups_with_affixes(names)]
    groups = [group for group in groups if len(set(group.values())) == len(group) > 1]
    return [group for group in groups if "train" in group.values()]


def is_named_alike(name: str, splits: Collection[str]) -> bool:
    """Tell whether a name has the beginning and the end of those of some splits: `seg_pred`."""
    ends = [_cut(split)[:1] for split in splits]
    for ((before, _, after),) in filter(None, ends):
        if (before or after) and _plain(name).startswith(before) and _plain(name).endswith(after):
            return True
    return False


def words_of_splits(names: Sequence[str]) -> dict[str, Split]:
    """Return the names in which words of exactly one split stand, with that split."""
    found = {name: {split for _, split, _ in _cut(name)} for name in names}
    return {name: splits.pop() for name, splits in found.items() if len(splits) == 1}


def refuse_classes_named_like_splits(names: Collection[str], where: object) -> None:
    """Refuse one or two classes that are all named like splits: a model would learn to tell these apart.

    Raises:
        DataError: they are.
    """
    whole = sum(split_of(name) is not None for name in names)
    if 0 < len(names) <= 2 and len(names) in (whole, len(_splits_with_affixes(list(names)))):
        raise DataError(
            f"{where}: the classes would be {quoted(names)}, which are names of splits.\n"
            "Classes come from the folders inside those of splits, or from the label column of a table "
            "(data.columns.label); if these are classes, rename them."
        )


def _splits_with_affixes(names: Sequence[str]) -> dict[str, Split]:
    fitting = _groups_with_affixes(names)
    return fitting[0] if len(fitting) == 1 else {}


def _groups_with_affixes(names: Sequence[str]) -> list[dict[str, Split]]:
    alike: Mapping[tuple[str, str], dict[str, Split]] = defaultdict(dict)
    for name in names:
        if len({split for _, split, _ in _cut(name)}) == 1:
            for before, split, after in _cut(name):
                alike[before, after][name] = split
    return [splits for splits in alike.values() if len(set(splits.values())) > 1]


def _cut(name: str) -> list[tuple[str, Split, str]]:
    """Return what stands before and after each word of a split in a name, in any case and spelling."""
    found = []
    for word in _WORD.finditer(name):
        if (split := split_of(word[0])) is not None:
            rest = name[word.end() :]
            rest = rest[end.end() :] if (end := _SET.match(rest)) else rest
            found.append((_plain(name[: word.start()]), split, _plain(rest)))
    return found


def _plain(text: str) -> str:
    return text.casefold().replace("-", "_").replace(" ", "_")
