"""How predictions are written: as JSON, as CSV, as a table on screen. Each task has an output of its own."""

import csv
import io
import json
from collections.abc import Sequence
from typing import ClassVar, Protocol

from finetune.commands.predict.prediction import Prediction
from finetune.text import counted


class Output(Protocol):
    """How the predictions of a task are written."""

    csv_header: ClassVar[tuple[str, ...]]
    table_header: ClassVar[tuple[str, ...]]

    def json_object(self, prediction: Prediction) -> dict[str, object]:
        """Return a prediction as `predict --json` documents it."""
        ...

    def csv_rows(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return a row for each class, or one for the error."""
        ...

    def table_row(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the row of the table on screen."""
        ...


def output_of(predictions: Sequence[Prediction], least: float | None = None) -> Output:
    """Return how the predictions of a model are written; where there are none, like those of one class.

    Answers that are less certain than `least` are marked as unsure.
    """
    several = any(prediction.task.multilabel for prediction in predictions)
    return MultiLabelOutput(least) if several else SingleLabelOutput(least)


def json_text(predictions: Sequence[Prediction], least: float | None = None) -> str:
    """Return predictions as one JSON list."""
    output = output_of(predictions, least)
    return json.dumps([output.json_object(prediction) for prediction in predictions]) + "\n"


def csv_text(predictions: Sequence[Prediction], least: float | None = None) -> str:
    """Return predictions as CSV with a header."""
    output, text = output_of(predictions, least), io.StringIO(newline="")
    writer = csv.DictWriter(text, output.csv_header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for prediction in predictions for row in output.csv_rows(prediction))
    return text.getvalue()


def remarks_summary(predictions: Sequence[Prediction], least: float | None) -> list[str]:
    """Say of how many images an answer is unsure, or the model knows nothing like them; nothing for none."""
    read = [prediction for prediction in predictions if prediction.error is None]
    lines = []
    if least is not None:
        unsure = sum(bool(prediction.unsure(least)) for prediction in read)
        lines.append(f"unsure (a probability below {least:g}): {unsure:,} of {counted(len(read), 'image')}")
    if unlike := sum(bool(prediction.unlike) for prediction in read):
        share = f"{unlike:,} of {counted(len(read), 'image')}"
        lines.append(f"unlike all that the model was trained on: {share}; its answers there mean little")
    return lines


class _Remarks:
    """What both kinds of output say of an answer as a whole."""

    def __init__(self, least: float | None = None) -> None:
        self.least = least

    def flags(self, prediction: Prediction) -> dict[str, object]:
        """Return what JSON says of it: `unsure` only where it was asked for."""
        flags: dict[str, object] = {"certainty": prediction.certainty, "unlike": prediction.unlike}
        return flags if self.least is None else flags | {"unsure": prediction.unsure(self.least)}

    def remark(self, prediction: Prediction) -> str:
        """Return what the table on screen says of it."""
        unsure = self.least is not None and prediction.unsure(self.least)
        return ", ".join(["unsure"] * bool(unsure) + ["unlike"] * bool(prediction.unlike)) or "–"

    def csv_rows(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return a row for each of the most probable classes, or one for the error."""
        if prediction.error is not None:
            return [{"image": prediction.image, "error": prediction.error}]
        flags = self.flags(prediction)
        del flags["certainty"]
        marks = {name: "" if flag is None else int(bool(flag)) for name, flag in flags.items()}
        return [
            {"image": prediction.image, "rank": rank, "class": answer.name, "probability": answer.probability}
            | marks
            for rank, answer in enumerate(prediction.classes, start=1)
        ]


class SingleLabelOutput(_Remarks):
    """The most probable class, and those that come next."""

    csv_header: ClassVar[tuple[str, ...]] = (
        "image",
        "rank",
        "class",
        "probability",
        "unsure",
        "unlike",
        "error",
    )
    table_header: ClassVar[tuple[str, ...]] = (
        "image",
        "class",
        "probability",
        "next most probable",
        "remark",
    )

    def json_object(self, prediction: Prediction) -> dict[str, object]:
        """Return the most probable classes."""
        classes = [{"class": one.name, "probability": one.probability} for one in prediction.classes]
        answer = {"image": prediction.image, "predictions": classes}
        return answer | self.flags(prediction) | {"error": prediction.error}

    def table_row(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the most probable class, its probability, and the next ones."""
        if prediction.error is not None:
            return prediction.image, "–", "–", prediction.error, "–"
        best, *others = prediction.classes
        next_ones = ", ".join(map(str, others))
        return prediction.image, best.name, f"{best.probability:.2%}", next_ones, self.remark(prediction)


class MultiLabelOutput(_Remarks):
    """All classes that an image has, and the most probable of those that it has not."""

    csv_header: ClassVar[tuple[str, ...]] = (
        "image",
        "rank",
        "class",
        "probability",
        "assigned",
        "unsure",
        "unlike",
        "error",
    )
    table_header: ClassVar[tuple[str, ...]] = ("image", "labels", "next most probable", "remark")

    def json_object(self, prediction: Prediction) -> dict[str, object]:
        """Return the labels, and the most probable classes with their thresholds."""
        classes = [
            {"class": one.name, "probability": one.probability, "threshold": one.threshold}
            for one in prediction.classes[: prediction.top_k]
        ]
        return {
            "image": prediction.image,
            "labels": prediction.labels,
            "predictions": classes,
            **self.flags(prediction),
            "error": prediction.error,
        }

    def csv_rows(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return a row for each of the most probable classes and of those that the image has."""
        rows = super().csv_rows(prediction)
        for row, answer in zip(rows, prediction.classes, strict=False):  # an error has a row, and no class
            row["assigned"] = int(answer.given)
        return rows

    def table_row(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the labels, and the most probable of the other classes."""
        if prediction.error is not None:
            return prediction.image, "–", prediction.error, "–"
        labels = [answer for answer in prediction.classes if answer.given]
        others = [answer for answer in prediction.classes[: prediction.top_k] if not answer.given]
        given, not_given = ", ".join(map(str, labels)) or "–", ", ".join(map(str, others))
        return prediction.image, given, not_given, self.remark(prediction)
