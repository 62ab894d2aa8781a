"""Load a server with good and hostile requests; print how many were lost, how long they took, and its memory.

    python benchmarks/serve.py RUN [--requests 1000] [--at-once 16] [--pictures FOLDER]

It starts `finetune serve RUN` itself, on a free port of this machine. Three of four requests hold pictures,
of FOLDER or drawn here; the rest are hostile: no pictures, bombs, broken JSON, bodies that are too large, ten
thousand files, clients that are slow or hang up. A request is lost if its answer is missing, late or of
another status than it should have. At the end SIGTERM comes while requests are in work, which must still be
answered. The exit code is 1 if anything was lost.
"""

import argparse
import atexit
import base64
import http.client
import io
import json
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SERVER_TIMEOUT = 3.0
PATIENCE = 60.0
EDGE = "edge-of-a-part"


class Request(NamedTuple):
    """A request, and what should come of it."""

    name: str
    body: bytes
    headers: dict[str, str]
    status: int


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form."""
    head = '--{}\r\nContent-Disposition: form-data; name="images"; filename="{}"\r\n\r\n'
    parts = [head.format(EDGE, name).encode() + content + b"\r\n" for name, content in files]
    return b"".join(parts) + f"--{EDGE}--\r\n".encode(), {
        "Content-Type": f"multipart/form-data; boundary={EDGE}"
    }


def drawn_pictures() -> list[bytes]:
    """Draw pictures of several sizes and formats."""
    generator, pictures = np.random.default_rng(0), []
    for side, kind in ((40, "PNG"), (300, "JPEG"), (900, "JPEG"), (640, "WEBP")):
        for _ in range(3):
            small = generator.integers(0, 255, (20, 30, 3), dtype=np.uint8)
            content = io.BytesIO()
            Image.fromarray(small).resize((side, side)).save(content, kind)
            pictures.append(content.getvalue())
    return pictures


def bomb(side: int = 60_000) -> bytes:
    """Return a PNG of a few bytes that says it has billions of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def good_requests(pictures: list[bytes]) -> list[Request]:
    """Return requests that are answered: a form of one or of several pictures, JSON, bytes."""
    requests = []
    for number, picture in enumerate(pictures):
        other = pictures[number - 1]
        document = {"images": [base64.b64encode(picture).decode()] * 2, "top_k": 2}
        requests += [
            Request("one", *form((f"{number}.jpg", picture)), 200),
            Request("three", *form(("a", picture), ("b", other), ("c", picture)), 200),
            Request("json", json.dumps(document).encode(), {"Content-Type": "application/json"}, 200),
            Request("bytes", picture, {"Content-Type": "image/jpeg"}, 200),
        ]
    return requests


def hostile_requests(pictures: list[bytes], max_bytes: int) -> list[Request]:
    """Return requests that are refused."""
    picture, as_json = pictures[-1], {"Content-Type": "application/json"}
    return [
        Request("empty", *form(("a.jpg", b"")), 400),
        Request("truncated", *form(("a.jpg", picture[: len(picture) // 2])), 400),
        Request("page", *form(("../../a.jpg", b"<!doctype html><script>alert(1)</script>")), 400),
        Request("bomb", *form(("a.png", bomb())), 400),
        Request("noise", *form(("a.png", random.Random(0).randbytes(50_000))), 400),
        Request("many", *form(*((f"{n}.jpg", b"x") for n in range(10_000))), 413),
        Request("large", *form(("a.jpg", bytes(max_bytes + 1))), 413),
        Request("brackets", b"[" * 100_000, as_json, 400),
        Request("path", b'{"images": ["/etc/passwd"]}', as_json, 400),
        Request("no base64", b'{"images": ["!!!!"]}', as_json, 400),
        Request("no JSON", b"{'images': ", as_json, 400),
        Request("text", b"hello", {"Content-Type": "text/plain"}, 415),
        Request("other host", *form(("a.jpg", picture)), 403)._replace(headers={"Host": "evil.example"}),
    ]


class Outcome(NamedTuple):
    """What came of a request."""

    name: str
    lost: str
    """why it is; empty if it is not"""
    seconds: float


def send(port: int, request: Request) -> Outcome:
    """Send a request, and compare its answer with what it should be."""
    began, lost = time.perf_counter(), ""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("POST", "/predict", request.body, request.headers)
        response = connection.getresponse()
        document = json.loads(response.read())
        if response.status != request.status:
            lost = f"{response.status} instead of {request.status}: {document}"
        elif request.status != 200 and not document["error"]:
            lost = "no reason"
    except (OSError, http.client.HTTPException, ValueError) as error:
        lost = repr(error)
    finally:
        connection.close()
    return Outcome(request.name, lost, time.perf_counter() - began)


def hang_up(port: int) -> Outcome:
    """Send half a request and leave."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        client.sendall(b"Content-Length: 1000\r\n\r\n" + b"x" * 500)
    return Outcome("hangs up", "", 0.0)


def dawdle(port: int) -> Outcome:
    """Send half a request and wait for the server's patience to end."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        client.sendall(b"Content-Length: 1000\r\n\r\n" + b"x" * 500)
        first = client.recv(100).partition(b"\r\n")[0].decode()
    lost = "" if " 408 " in first else f"{first!r} instead of 408"
    return Outcome("slow", lost, time.perf_counter() - began)


class Server:
    """`finetune serve` in a process of its own."""

    def __init__(self, run: Path, max_bytes: int) -> None:
        """Start it, and wait until it says where it listens."""
        options = ["--port", "0", "--timeout", str(SERVER_TIMEOUT), "--max-bytes", str(max_bytes)]
        command = [sys.executable, "-m", "finetune", "serve", str(run), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/$", line.strip()):
                self.port = int(found[1])
                return
        raise SystemExit("the server did not start")

    def memory(self) -> float:
        """Return what it holds, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def load(port: int, jobs: list[Callable[[int], Outcome]], at_once: int) -> list[Outcome]:
    """Do all jobs, so many at a time."""
    with ThreadPoolExecutor(at_once) as clients:
        return list(clients.map(lambda job: job(port), jobs))


def stop_under_load(server: Server, request: Request, at_once: int) -> tuple[list[Outcome], int]:
    """Send SIGTERM when half of some requests is there; return their outcomes, and the exit code."""
    term = threading.Event()

    def in_halves(_: int) -> Outcome:
        lost, half = "", len(request.body) // 2
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        try:
            connection.putrequest("POST", "/predict")
            for name, value in {**request.headers, "Content-Length": str(len(request.body))}.items():
                connection.putheader(name, value)
            connection.endheaders(request.body[:half])
            term.wait(PATIENCE)
            connection.send(request.body[half:])
            status = connection.getresponse().status
            lost = "" if status == request.status else str(status)
        except (OSError, http.client.HTTPException) as error:
            lost = repr(error)
        finally:
            connection.close()
        return Outcome(request.name, lost, 0.0)

    with ThreadPoolExecutor(at_once) as clients:
        outcomes = clients.map(in_halves, range(at_once))
        deadline = time.monotonic() + SERVER_TIMEOUT
        while json.loads(health(server.port))["requests"] < at_once and time.monotonic() < deadline:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        term.set()
        found = list(outcomes)
    return found, server.process.wait(timeout=PATIENCE)


def health(port: int) -> bytes:
    """Return what the server says of itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().read()
    finally:
        connection.close()


def jobs_of(pictures: list[bytes], number: int, max_bytes: int) -> list[Callable[[int], Outcome]]:
    """Return the requests of a load, in an order that is the same each time."""
    draw, good, hostile = random.Random(0), good_requests(pictures), hostile_requests(pictures, max_bytes)
    asked: list[Callable[[int], Outcome]] = []
    bad: list[Callable[[int], Outcome]] = [hang_up, dawdle]
    bad += [partial(send, request=request) for request in hostile]
    for position in range(number):
        if position % 4 == 3:
            asked.append(bad[position // 4 % len(bad)])
        else:
            asked.append(partial(send, request=draw.choice(good)))
    return asked


def main() -> None:
    """Load a server, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--max-bytes", type=int, default=5_000_000)
    given = parser.parse_args()
    pictures = drawn_pictures()
    if given.pictures is not None:
        files = [path for path in sorted(given.pictures.rglob("*")) if path.suffix in (".jpg", ".png")]
        pictures = [path.read_bytes() for path in files[:: max(1, len(files) // 40)]]
    server = Server(given.run, given.max_bytes)
    atexit.register(server.process.kill)  # whatever goes wrong here
    jobs = jobs_of(pictures, given.requests, given.max_bytes)
    third = len(jobs) // 3
    began = time.perf_counter()
    outcomes = load(server.port, jobs[:third], given.at_once)
    before = server.memory()
    outcomes += load(server.port, jobs[third:], given.at_once)
    after, took = server.memory(), time.perf_counter() - began
    stopped, code = stop_under_load(server, good_requests(pictures)[1], given.at_once)
    report(outcomes, took, at_once=given.at_once)
    print(f"memory    {before:.0f} MB after a third of them, {after:.0f} MB at the end")
    print(f"SIGTERM   {sum(not one.lost for one in stopped)} of {len(stopped)} answered, exit code {code}")
    raise SystemExit(any(one.lost for one in (*outcomes, *stopped)) or code != 0)


def report(outcomes: list[Outcome], took: float, *, at_once: int) -> None:
    """Print how many requests were lost, and how long the others took."""
    lost = [one for one in outcomes if one.lost]
    times = sorted(one.seconds for one in outcomes if one.name in ("one", "three", "json", "bytes"))
    hostile = len(outcomes) - len(times)
    print(f"requests  {len(outcomes)}, {at_once} at once, {hostile} hostile; {len(outcomes) / took:.0f}/s")
    print(f"lost      {len(lost)}")
    for (name, why), count in Counter((one.name, one.lost) for one in lost).most_common(5):
        print(f"          {count} of {name}: {why[:200]}")
    p50, p95 = statistics.median(times), times[int(0.95 * (len(times) - 1))]
    print(f"seconds   median {p50:.3f}, 95% below {p95:.3f}")


if __name__ == "__main__":
    main()
