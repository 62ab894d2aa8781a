"""The web application of a model: a page, predictions as JSON, and what it says of itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from finetune.commands.serve.guard import LOCAL, Guard, error_response
from finetune.commands.serve.limits import ServeOptions
from finetune.commands.serve.openapi import PREDICT
from finetune.commands.serve.service import Service
from finetune.report.serve_page import serve_page
from finetune.runs.trained_model import TrainedModel
from finetune.version import VERSION

_ANY_ADDRESS = ("0.0.0.0", "::")


def build_app(trained: TrainedModel, options: ServeOptions) -> FastAPI:
    """Build the application that serves a model; it opens no port, and reads and writes no file."""
    service = Service(trained, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(service.answering.run())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    # The pages that FastAPI has for its API load scripts from elsewhere.
    app = FastAPI(
        title=f"finetune: {service.name}", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    names = {*LOCAL, options.host, *options.allowed_hosts}
    allowed = {"*"} if options.host in _ANY_ADDRESS and not options.allowed_hosts else names
    app.add_middleware(Guard, allowed=allowed, limits=options.limits, load=service.load)
    _answer_errors_as_json(app)
    _add_routes(app, service)
    return app


def _answer_errors_as_json(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, f"{error.detail}; there are /predict, /model and /health")

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return error_response(500, "the server has failed; its log says how")


def _add_routes(app: FastAPI, service: Service) -> None:
    about = service.about()
    page, policy = serve_page(about)

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    @app.get("/health", summary="Tell that the server answers, and how busy it is")
    async def health() -> dict[str, Any]:
        return service.health()

    @app.get("/model", summary="Describe the model, and what may be asked of it")
    async def model() -> dict[str, Any]:
        return about

    @app.post("/predict", summary="Classify one image or several", openapi_extra=PREDICT)
    async def predict(request: Request) -> Response:
        status, answers = await service.predict(request)
        # Escaped to ASCII: names of classes may hold bytes that are no text.
        return Response(json.dumps(answers), status, media_type="application/json")
