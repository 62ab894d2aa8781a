"""The story of `finetune serve`: a page and an address that answer until they are stopped."""

import importlib.util
import math
import socket
from pathlib import Path

from finetune.choices import DeviceName
from finetune.commands.evaluate.evaluate import views_line
from finetune.commands.serve.limits import ServeOptions
from finetune.display import Display
from finetune.errors import ConfigError, MachineError
from finetune.machine.device import choose_device, keep_large_buffers
from finetune.runs.trained_model import TrainedModel, load_trained, unfinished_warning
from finetune.text import counted, printable, shown_size

INSTALL = "pip install 'finetune-vision[serve]'"

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart"}
_LISTENING = 128  # connections that wait to be accepted


def serve(run_dir: Path, options: ServeOptions, *, device: DeviceName, display: Display) -> None:
    """Serve a run's model until SIGTERM or Ctrl-C; what is in work by then is still answered.

    Raises:
        ConfigError: the extra `serve` is not installed.
        RunError: not a finished run.
        MachineError: the port is taken, or the address is not one of this machine.
    """
    require_server()
    keep_large_buffers()
    with listen(options.host, options.port) as listener:
        trained = load_trained(run_dir, choose_device(device))
        if warning := unfinished_warning(trained):
            display.warn(warning)
        if options.tta:
            display.say(views_line(trained.with_tta(True)))
        _run(trained, options, listener, display)
    display.say("stopped; all requests were answered")


def require_server() -> None:
    """Refuse to go on without the packages that serve.

    Raises:
        ConfigError: some are missing.
    """
    missing = [package for name, package in _NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serve needs {', '.join(missing)}.\nInstall it: {INSTALL}")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        MachineError: the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_LISTENING)
    except (OSError, UnicodeError, OverflowError) as error:
        listener.close()
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise MachineError(
            f"cannot listen on {printable(host)}, port {port}: {reason}.\n"
            "Take another one with --port; --port 0 takes one that is free."
        ) from None
    return listener


def _run(trained: TrainedModel, options: ServeOptions, listener: socket.socket, display: Display) -> None:
    import uvicorn

    from finetune.commands.serve.app import build_app

    config = uvicorn.Config(
        build_app(trained, options),
        http="h11",
        ws="none",
        log_level="error",  # of warnings a client could make as many as it likes
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(options.limits.timeout) + 5,
    )
    server = uvicorn.Server(config)
    _announce(trained, options, listener, display)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn raises the signal again that it has heeded
        if server.force_exit or not server.should_exit:
            raise


def _announce(
    trained: TrainedModel, options: ServeOptions, listener: socket.socket, display: Display
) -> None:
    port, limits = listener.getsockname()[1], options.limits
    host = f"[{options.host}]" if ":" in options.host else options.host
    display.say(f"model    {trained.run.directory}: {counted(len(trained.class_names), 'class', 'classes')}")
    display.say(f"page     http://{host}:{port}/")
    display.say(f"answers  POST http://{host}:{port}/predict (openapi.json describes it)")
    display.say(
        f"limits   {shown_size(limits.max_bytes)} and {counted(limits.max_images, 'image')} a request, "
        f"{limits.timeout:g} s, {counted(limits.max_requests, 'request')} at once"
    )
    display.say("Ctrl-C stops it")
