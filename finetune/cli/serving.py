"""The command that answers other programs and people until it is stopped."""

from finetune.cli.app import app, display_for, reported_errors
from finetune.cli.options import (
    Device,
    LeastCertainty,
    Quiet,
    RunDirectory,
    TestTimeAugmentation,
    TopK,
)
from finetune.cli.serve_options import (
    AllowedHosts,
    MostBytes,
    MostImages,
    MostPixels,
    MostRequests,
    RequestTimeout,
    ServeHost,
    ServePort,
)
from finetune.errors import ConfigError
from finetune.machine.quick_imports import quick_torch_imports


@app.command()
def serve(
    run: RunDirectory,
    host: ServeHost = "127.0.0.1",
    port: ServePort = 8000,
    allow_host: AllowedHosts = None,
    top_k: TopK = 3,
    unsure: LeastCertainty = None,
    tta: TestTimeAugmentation = False,
    max_bytes: MostBytes = "20MB",
    max_images: MostImages = 64,
    max_pixels: MostPixels = None,
    max_requests: MostRequests = 64,
    timeout: RequestTimeout = 30.0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Serve a page to drop pictures on, and answers as JSON."""
    with reported_errors(prints_a_log=True):
        with quick_torch_imports():
            from finetune.commands.serve.limits import ServeLimits, ServeOptions
            from finetune.commands.serve.serve import serve as story
            from finetune.machine.cache import parse_size

        try:
            size = parse_size(max_bytes)
        except ValueError as error:
            raise ConfigError(f"--max-bytes: {error}") from None
        if size < 1:
            raise ConfigError(f"--max-bytes {max_bytes}: no picture is as small as that.")
        limits = ServeLimits(size, max_images, max_pixels, timeout, max_requests)
        options = ServeOptions(host, port, tuple(allow_host or ()), top_k, unsure, tta, limits)
        story(run, options, device=device, display=display_for(False, quiet=quiet))
