"""The scores of a run or an evaluation, on screen."""

from finetune.analysis.uncertainty import share_interval
from finetune.display import Display
from finetune.metrics.multi_label import MultiLabelScores
from finetune.metrics.score import Scores
from finetune.metrics.single_label import SingleLabelScores
from finetune.text import counted, with_counts

# A screen holds this many classes; the rest is in report.json.
_CLASSES_ON_SCREEN = 40
_MATRIX_ON_SCREEN = 12

FEW_IMAGES = 100
"""Of fewer, the 95% interval of an accuracy may reach more than 10 points to either side, and `show_scores`
warns."""


def show_scores(display: Display, scores: Scores) -> None:
    """Print the figures of all images and of each class, or what a screen can hold of them."""
    if (warning := few_images_warning(scores)) is not None:
        display.warn(warning)
    match scores:
        case SingleLabelScores():
            if (warning := never_predicted_warning(scores)) is not None:
                display.warn(warning)
            _show_single_label(display, scores)
        case MultiLabelScores():
            _show_multi_label(display, scores)


def accuracy_interval(scores: Scores) -> tuple[float, float]:
    """Return the 95% interval of the accuracy, 0–1: what it may be on other images of the same kind."""
    return share_interval(round(scores.accuracy * scores.images), scores.images)


def few_images_warning(scores: Scores) -> str | None:
    """Return what to warn of where so few images were scored that luck decides; None where there are more."""
    if scores.images >= FEW_IMAGES:
        return None
    low, high = accuracy_interval(scores)
    return (
        f"{counted(scores.images, 'image')} say little: {scores.accuracy:.2%} right of these may be "
        f"{low:.0%} to {high:.0%} of others like them (95% interval)\n"
        "Score the model on more images: finetune evaluate RUN DATA; or train with more of them in data.val."
    )


def never_predicted_warning(scores: SingleLabelScores) -> str | None:
    """Return what to warn of where classes that images have are given to none of them; None where none is."""
    never = scores.never_predicted
    missed = {row.name: row.support for row in scores.per_class if row.support and row.name in never}
    if not missed:
        return None
    return (
        f"no image is given {counted(len(missed), 'class', 'classes')} of {len(scores.class_names):,}: "
        f"{with_counts(missed)}; balanced accuracy shows it, accuracy may not\n"
        "Train on more images of them, or with data.balance=sampler monitor=val_balanced_accuracy."
    )


def headline(scores: Scores) -> str:
    """Return the figures of all images in a line."""
    match scores:
        case SingleLabelScores():
            top = "".join(f"   top-{k} {share:.2%}" for k, share in scores.top_k.items())
            figures = f"accuracy {scores.accuracy:.2%}{top}   loss {scores.loss:.4f}"
            figures += f"   macro F1 {scores.macro_f1:.4f}"
        case MultiLabelScores():
            figures = f"mAP {scores.map:.4f}   macro F1 {scores.macro_f1:.4f}"
            figures += f"   micro F1 {scores.micro_f1:.4f}   loss {scores.loss:.4f}"
    return f"{figures}   ({counted(scores.images, 'image')})"


def _show_single_label(display: Display, scores: SingleLabelScores) -> None:
    display.say(headline(scores))
    display.say(f"balanced accuracy {scores.balanced_accuracy:.2%} (mean recall over classes)")
    never = scores.never_predicted
    rows = sorted(scores.per_class, key=lambda row: row.f1) if _too_many(scores) else scores.per_class
    display.say("")
    display.table(
        ("class", "precision", "recall", "F1", "images"),
        [
            (
                row.name,
                "–" if row.name in never else f"{row.precision:.4f}",
                f"{row.recall:.4f}" if row.support else "–",
                "–" if not row.support and row.name in never else f"{row.f1:.4f}",
                row.support,
            )
            for row in rows[:_CLASSES_ON_SCREEN]
        ],
        title=_title(scores),
    )
    display.say("")
    if len(scores.class_names) <= _MATRIX_ON_SCREEN:
        display.table(
            ("true \\ predicted", *scores.class_names),
            [(name, *row) for name, row in zip(scores.class_names, scores.confusion_matrix, strict=True)],
        )
    else:
        confusions = most_confused(scores, 10)
        display.table(("true class", "predicted as", "images"), confusions, title="most frequent confusions")


def _show_multi_label(display: Display, scores: MultiLabelScores) -> None:
    display.say(headline(scores))
    display.say(f"all labels right {scores.accuracy:.2%}   balanced accuracy {scores.balanced_accuracy:.2%}")
    rows = sorted(scores.per_class, key=lambda row: row.f1) if _too_many(scores) else scores.per_class
    display.say("")
    display.table(
        ("class", "AP", "threshold", "precision", "recall", "F1", "images"),
        [
            (
                row.name,
                "–" if row.average_precision is None else f"{row.average_precision:.4f}",
                f"{row.threshold:.4f}",
                f"{row.precision:.4f}",
                f"{row.recall:.4f}" if row.support else "–",
                f"{row.f1:.4f}",
                row.support,
            )
            for row in rows[:_CLASSES_ON_SCREEN]
        ],
        title=_title(scores),
    )


def _too_many(scores: Scores) -> bool:
    return len(scores.per_class) > _CLASSES_ON_SCREEN


def _title(scores: Scores) -> str:
    return f"the {_CLASSES_ON_SCREEN} worst of {len(scores.per_class):,} classes" if _too_many(scores) else ""


def most_confused(scores: SingleLabelScores, most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent (true class, predicted class, images) off the diagonal."""
    pairs = [
        (scores.class_names[true], scores.class_names[predicted], images)
        for true, predicted, images in scores.confusions
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]
