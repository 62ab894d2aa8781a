"""How predictions are written: as JSON, as CSV, as a table on screen. Each task has an output of its own."""

import csv
import io
import json
from collections.abc import Sequence
from typing import ClassVar, Protocol

from finetune.commands.predict.prediction import Prediction


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


def output_of(predictions: Sequence[Prediction]) -> Output:
    """Return how the predictions of a model are written; where there are none, like those of one class."""
    several = any(prediction.task.multilabel for prediction in predictions)
    return MultiLabelOutput() if several else SingleLabelOutput()


def json_text(predictions: Sequence[Prediction]) -> str:
    """Return predictions as one JSON list."""
    output = output_of(predictions)
    return json.dumps([output.json_object(prediction) for prediction in predictions]) + "\n"


def csv_text(predictions: Sequence[Prediction]) -> str:
    """Return predictions as CSV with a header."""
    output, text = output_of(predictions), io.StringIO(newline="")
    writer = csv.DictWriter(text, output.csv_header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for prediction in predictions for row in output.csv_rows(prediction))
    return text.getvalue()


class SingleLabelOutput:
    """The most probable class, and those that come next."""

    csv_header: ClassVar[tuple[str, ...]] = ("image", "rank", "class", "probability", "error")
    table_header: ClassVar[tuple[str, ...]] = ("image", "class", "probability", "next most probable")

    def json_object(self, prediction: Prediction) -> dict[str, object]:
        """Return the most probable classes."""
        classes = [{"class": one.name, "probability": one.probability} for one in prediction.classes]
        return {"image": prediction.image, "predictions": classes, "error": prediction.error}

    def csv_rows(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return a row for each of the most probable classes."""
        return _csv_rows(prediction)

    def table_row(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the most probable class, its probability, and the next ones."""
        if prediction.error is not None:
            return prediction.image, "–", "–", prediction.error
        best, *others = prediction.classes
        return prediction.image, best.name, f"{best.probability:.2%}", ", ".join(map(str, others))


class MultiLabelOutput:
    """All classes that an image has, and the most probable of those that it has not."""

    csv_header: ClassVar[tuple[str, ...]] = ("image", "rank", "class", "probability", "assigned", "error")
    table_header: ClassVar[tuple[str, ...]] = ("image", "labels", "next most probable")

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
            "error": prediction.error,
        }

    def csv_rows(self, prediction: Prediction) -> list[dict[str, object]]:
        """Return a row for each of the most probable classes and of those that the image has."""
        rows = _csv_rows(prediction)
        for row, answer in zip(rows, prediction.classes, strict=False):  # an error has a row, and no class
            row["assigned"] = int(answer.given)
        return rows

    def table_row(self, prediction: Prediction) -> tuple[str, ...]:
        """Return the labels, and the most probable of the other classes."""
        if prediction.error is not None:
            return prediction.image, "–", prediction.error
        labels = [answer for answer in prediction.classes if answer.given]
        others = [answer for answer in prediction.classes[: prediction.top_k] if not answer.given]
        return prediction.image, ", ".join(map(str, labels)) or "–", ", ".join(map(str, others))


def _csv_rows(prediction: Prediction) -> list[dict[str, object]]:
    if prediction.error is not None:
        return [{"image": prediction.image, "error": prediction.error}]
    return [
        {"image": prediction.image, "rank": rank, "class": answer.name, "probability": answer.probability}
        for rank, answer in enumerate(prediction.classes, start=1)
    ]
