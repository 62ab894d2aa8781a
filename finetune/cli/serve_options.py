"""The options of `finetune serve`: where it listens, and what it takes."""

from typing import Annotated

import typer

ServeHost = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for other machines.")
]
ServePort = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for one that is free.")]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A further name that clients may call the server by; may be given several times.",
        show_default=False,
    ),
]
MostBytes = Annotated[
    str, typer.Option("--max-bytes", metavar="SIZE", help="The largest request: 20MB, 500kB.")
]
MostImages = Annotated[int, typer.Option("--max-images", min=1, help="The most images of a request.")]
MostPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        help="The most pixels of an image.  [default: data.max_pixels of the run]",
        show_default=False,
    ),
]
RequestTimeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, max=3600, metavar="S", help="Seconds that a request may take."),
]
MostRequests = Annotated[
    int, typer.Option("--max-requests", min=1, help="Requests that are answered at once.")
]
