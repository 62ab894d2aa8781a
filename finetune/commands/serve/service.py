"""What the web application does with a request, apart from HTTP."""

from typing import Any

from starlette.requests import Request

from finetune.commands.predict.output import output_of
from finetune.commands.serve.answering import Answering
from finetune.commands.serve.body import read_question
from finetune.commands.serve.limits import Load, ServeOptions
from finetune.commands.serve.settings import read_settings
from finetune.runs.trained_model import TrainedModel
from finetune.text import printable
from finetune.version import VERSION


class Service:
    """A model that is served."""

    def __init__(self, trained: TrainedModel, options: ServeOptions) -> None:
        """Take a model that is loaded, and how it is served."""
        self.trained, self.options = trained.with_tta(options.tta), options
        self.load = Load()
        self.answering = Answering(self.trained, options.limits)

    @property
    def name(self) -> str:
        """The name of the run."""
        return printable(self.trained.run.directory.absolute().name)

    def health(self) -> dict[str, Any]:
        """Return how many requests are in work, and how many of their images wait for the model."""
        return {
            "status": "ok",
            "run": self.name,
            "requests": self.load.requests,
            "images": self.answering.queue.waiting,
        }

    def about(self) -> dict[str, Any]:
        """Return what the model answers, and what may be asked of it."""
        trained, limits = self.trained, self.options.limits
        return {
            "run": self.name,
            "finetune": VERSION,
            "arch": trained.model.spec.arch,
            "classes": list(map(printable, trained.class_names)),
            "several_labels": trained.task.multilabel,
            "metadata": [] if trained.metadata is None else list(map(printable, trained.metadata.names)),
            "top_k": min(self.options.top_k, len(trained.class_names)),
            "unsure": self.options.unsure,
            "limits": {
                "bytes": limits.max_bytes,
                "images": limits.max_images,
                "pixels": self.answering.max_pixels,
                "seconds": limits.timeout,
                "requests": limits.max_requests,
            },
        }

    async def predict(self, request: Request) -> tuple[int, Any]:
        """Return the HTTP status and the answers to a request.

        Raises:
            RefusedError: there are none, and why.
        """
        question = await read_question(request, self.options.limits)
        given = {**request.query_params, **question.settings}
        settings = read_settings(given, self.options, len(self.trained.class_names))
        found = await self.answering.predict(question.uploads, question.metadata, settings)
        output = output_of([one.prediction for one in found], settings.unsure)
        answers = [
            output.json_object(one.prediction)
            | ({"explanation": one.explanation} if settings.explain else {})
            for one in found
        ]
        if any(one.prediction.error is None for one in found):
            return 200, answers
        return 400, {"error": f"{answers[0]['image']}: {answers[0]['error']}", "images": answers}
