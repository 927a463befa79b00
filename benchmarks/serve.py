"""What `situs serve` costs beside direct calls of `Labeler`.

Promise: on a 512x512x32 scan with one lesion, 8 clients get at least .8 of the findings a second that two
threads, as many as the server has, get from `Labeler` directly, in turns within the same run. Reported beside
it: the time from the drop of the scan to the answer, and the most memory of the server with 9 scans. Run:

    python benchmarks/serve.py [--bundle DIR] [--rounds 5] [--page-ready SECONDS] [--json FILE]

The server is a process of its own with one engine thread, as is the one with the direct calls. A request of
the rate asks for the findings on regions that the server has. The time to the answer is that of three
requests: the upload of the .nii.gz file, a box, and the findings. `--page-ready` takes the seconds that
`benchmarks/page.py` printed, to be judged with the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import frame
from label import write_phantom

CLIENTS, PER_CLIENT, THREADS = 8, 4, 2
LEAST_RATIO, PAGE_READY_S = 0.8, 3.0
TOKEN = "token-of-the-benchmark"
SCANS = "/api/v1/scans"
BOX = {"shapes": [{"box": [[-30, -20, -10], [-5, 10, 15]]}]}

# Reads the scan and its box once, then answers each line on standard input with the seconds for all calls.
DIRECT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from situs import Labeler, read_rois, read_volume
scan, roi, bundle, threads, calls = sys.argv[1:]
volume = read_volume(scan)
rois = read_rois(roi, volume)
labeler = Labeler.load(bundle or None)
with ThreadPoolExecutor(int(threads)) as pool:
    list(pool.map(lambda _: labeler.label(volume, rois), range(int(threads))))
    for _ in sys.stdin:
        began = time.perf_counter()
        list(pool.map(lambda _: labeler.label(volume, rois), range(int(calls))))
        print(time.perf_counter() - began, flush=True)
"""


class Server:
    """`situs serve` as a process, and requests to it."""

    def __init__(self, bundle: str) -> None:
        command = [sys.executable, "-m", "situs", "serve", "--port", "0", "--no-browser"]
        command += ["--bundle", bundle] if bundle else []
        environment = os.environ | {"SITUS_TOKEN": TOKEN}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline().partition("127.0.0.1:")[2].partition("/")[0])

    def ask(self, path: str, body: bytes | dict[str, Any], client: str = "benchmark-client") -> Any:
        """POST JSON or a file, and the answer."""
        headers = {"X-Situs-Token": TOKEN, "X-Situs-Client": client}
        if isinstance(body, dict):
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        else:
            head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="scan.nii.gz"\r\n\r\n'
            content = head + body + b"\r\n--b--\r\n"
            headers["Content-Type"] = "multipart/form-data; boundary=b"
        connection = HTTPConnection("127.0.0.1", self._port, timeout=600)
        connection.request("POST", path, content, headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        if answer.status != 201:
            raise RuntimeError(f"{path}: {answer.status}: {found}")
        return found

    def drop(self, scan: bytes, client: str) -> tuple[str, str]:
        """Send a scan and a box; the addresses that the findings are asked at."""
        path = f"{SCANS}/{self.ask(SCANS, scan, client)['id']}"
        return path, self.ask(f"{path}/rois", BOX, client)["id"]

    def label(self, path: str, roi: str, client: str) -> Any:
        return self.ask(f"{path}/findings", {"roi": roi}, client)

    @property
    def peak_mb(self) -> float:
        """The most memory that it has held."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_bundle()
    parser.add_argument("--rounds", type=frame.positive, default=5, help="turns of either (default: 5)")
    parser.add_argument("--page-ready", type=float, metavar="SECONDS", help="of the browser test of the page")
    parser.add_json()
    options = parser.parse_args(args)
    bundle = "" if options.bundle is None else str(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        scan, roi, box = (Path(folder, name) for name in ("scan.nii.gz", "roi.nii.gz", "box.json"))
        write_phantom(scan, roi)
        box.write_text(json.dumps({"schema": "situs.shapes/1", "space": "ras", **BOX}))
        server = Server(bundle)
        try:
            found = measure(server, scan.read_bytes(), [str(scan), str(box), bundle], options.rounds)
        finally:
            server.end()
    print_result(found, options.page_ready)
    frame.write_json(options.json, found)
    return 0


def measure(server: Server, scan: bytes, direct: list[str], rounds: int) -> dict[str, float]:
    """The figures of a server and of direct calls, which take turns."""
    server.label(*server.drop(scan, "warm-up-client"), "warm-up-client")
    drops = []
    clients = [f"client-{n:04d}" for n in range(CLIENTS)]
    held = {}
    for client in clients:
        with frame.Timer() as timer:
            held[client] = server.drop(scan, client)
            server.label(*held[client], client)
        drops.append(timer.wall_s)
    calls = [client for client in clients for _ in range(PER_CLIENT)]
    command = [sys.executable, "-c", DIRECT, *direct, str(THREADS), str(len(calls))]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None and other.stdout is not None
    served, called = [], []
    with ThreadPoolExecutor(CLIENTS) as pool:
        for turn in range(rounds + 1):
            other.stdin.write("\n")
            other.stdin.flush()
            direct_s = float(other.stdout.readline())
            began = time.perf_counter()
            list(pool.map(lambda client: server.label(*held[client], client), calls))
            if turn:  # the first is not counted
                served.append(len(calls) / (time.perf_counter() - began))
                called.append(len(calls) / direct_s)
    other.stdin.close()
    other.wait()
    return {
        "drop_to_answer_s": median(drops),
        "served_per_s": median(served),
        "direct_per_s": median(called),
        "ratio": median(s / c for s, c in zip(served, called, strict=True)),
        "peak_mb": server.peak_mb,
    }


def print_result(found: dict[str, float], page_ready: float | None) -> None:
    print(f"from the drop to the answer: {found['drop_to_answer_s']:.2f} s (median of {CLIENTS})")
    print(f"findings a second: {found['served_per_s']:.2f} served, {found['direct_per_s']:.2f} direct")
    print(f"most memory with {CLIENTS + 1} scans held: {found['peak_mb']:.0f} MB")
    promises = [frame.Promise("served against direct", found["ratio"], LEAST_RATIO, at_least=True)]
    if page_ready is not None:
        promises.append(frame.Promise("page ready", page_ready, PAGE_READY_S, "s"))
    frame.print_promises(promises)


if __name__ == "__main__":
    frame.run(main)
