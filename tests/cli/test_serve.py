"""`situs serve`: what it refuses, its process, and its end. Its answers are tested in ``tests/web``."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from phantoms.commands import refused
from phantoms.io_cases import write_dicom
from phantoms.small_bundle import small_bundle
from phantoms.telltale import TELLTALE, assert_silent, named_slices
from phantoms.web_server import SCANS, multipart

TOKEN = "a-token-of-the-tests"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--host", "0.0.0.0"], ["--host 0.0.0.0", "SITUS_TOKEN", "--token-file"]),
        (["--host", "no.such.host.invalid"], ["SITUS_TOKEN"]),
        (["--token-file", "absent"], ["--token-file absent", "cannot be read"]),
        (["--token-file", "short"], ["--token-file short", "at least 16"]),
        (["--token-file", "."], ["cannot be read"]),
        (["--port", "70000"], ["70000"]),
        (["--keep-minutes", "0"], ["0"]),
        (["--language", "xx"], ["--language xx"]),
        (["--bundle", "absent"], ["absent"]),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SITUS_TOKEN", raising=False)
    Path("short").write_text("secret\n")
    refused(capsys, ["serve", "--no-browser", "--port", "0", *args], *words)


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused(capsys, ["serve", "--no-browser", "--port", port], f"--port {port}", "choose another port")


def test_a_missing_extra_is_one_line(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("situs.web", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(capsys, ["serve", "--no-browser"], "uvicorn is not installed: pip install 'situs[web]'")


class Process:
    """The command in a process of its own."""

    def __init__(self, folder, *args):
        self.folder = folder
        command = [sys.executable, "-m", "situs", "serve", "--port", "0", "--bundle", str(small_bundle())]
        env = os.environ | {"TMPDIR": str(folder), "SITUS_TOKEN": TOKEN, "BROWSER": "true %s"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.run = subprocess.Popen([*command, "--no-browser", *args], env=env, **pipes)
        self.first = self.run.stdout.readline()
        self.port = int(self.first.partition("127.0.0.1:")[2].partition("/")[0])

    def ask(self, method, path, body=None, kind="application/json"):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"X-Situs-Token": TOKEN, "X-Situs-Client": "client-one", "Content-Type": kind}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def folders(self):
        return list(self.folder.glob("situs-serve-*"))

    def end(self, number=signal.SIGINT):
        self.run.send_signal(number)
        out, err = self.run.communicate(timeout=60)
        return self.run.returncode, out, err

    def begin_upload(self):
        """Send the half of a file."""
        content, kind = multipart([("scan.nii", bytes(10**6))])
        head = (
            f"POST {SCANS} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Situs-Token: {TOKEN}\r\nContent-Type: {kind}\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        head += f"X-Situs-Client: client-one\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[: 5 * 10**5])
        while not any(path.stat().st_size > 10**5 for path in self.folder.rglob("scan.nii")):
            time.sleep(0.05)
        return connection


@pytest.fixture
def start(tmp_path):
    started = []

    def make(*args):
        started.append(Process(tmp_path, *args))
        return started[-1]

    yield make
    for process in started:
        if process.run.poll() is None:
            process.run.kill()
        process.run.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_labels_the_example_and_leaves_nothing_behind(start, number):
    """No log, no file and no name of a scan, also when it is ended amid an upload."""
    process = start()
    assert process.first == f"situs serves http://127.0.0.1:{process.port}/ (Ctrl-C ends it)\n"
    (folder,) = process.folders()
    assert folder.stat().st_mode & 0o777 == 0o700
    status, content = process.ask("POST", SCANS, json.dumps({"example": True}))
    assert status == 201
    path = f"{SCANS}/{json.loads(content)['id']}"
    roi = json.loads(process.ask("POST", f"{path}/rois", json.dumps({"example": True}))[1])["id"]
    status, content = process.ask("POST", f"{path}/findings", json.dumps({"roi": roi}))
    assert status == 201 and len(json.loads(content)["findings"]) == 6
    assert process.ask("POST", SCANS, b"\0\1", "multipart/form-data; boundary=x")[0] == 400
    connection = process.begin_upload()
    code, out, err = process.end(number)
    connection.close()
    assert (code, out, err) == (0, "situs: stopped; all scans were dropped\n", "")
    assert not process.folders()


@pytest.mark.slow
def test_what_a_killed_server_left_is_removed_by_the_next(start):
    killed = start()
    connection = killed.begin_upload()
    killed.end(signal.SIGKILL)
    connection.close()
    assert len(killed.folders()) == 1
    second = start()
    assert [path.name.split("-")[2] for path in second.folders()] == [str(second.run.pid)]
    third = start()
    assert len(third.folders()) == 2  # that of a server which runs is left alone
    assert second.ask("GET", "/health")[0] == third.ask("GET", "/health")[0] == 200


@pytest.mark.slow
def test_a_scan_is_dropped_after_the_stated_time(start):
    process = start("--keep-minutes", "0.1")
    made = json.loads(process.ask("POST", SCANS, json.dumps({"example": True}))[1])
    assert made["expires_in_s"] == 6
    time.sleep(7)
    status, content = process.ask("GET", f"{SCANS}/{made['id']}/image.nii.gz")
    assert status == 404 and b"was dropped" in content


@pytest.mark.slow
def test_what_names_the_patient_is_in_no_answer_and_not_printed(start, tmp_path):
    """But for the Structured Report, which must. Files of one series, sent one by one."""
    folder = write_dicom(tmp_path / "ct", named_slices(), prefix=f"{TELLTALE}-DOE-JANE-")
    files = [(path.name, path.read_bytes()) for path in folder.iterdir()]
    process = start()
    status, made = process.ask("POST", SCANS, *multipart(files))
    assert status == 201
    path = f"{SCANS}/{json.loads(made)['id']}"
    answers = [made, gzip.decompress(process.ask("GET", f"{path}/image.nii.gz")[1])]
    answers.append(process.ask("POST", SCANS, *multipart([*files, ("notes.dcm", b"DOE JANE")]))[1])
    shapes = {"shapes": [{"point": [0, 0, 0], "radius_mm": 20}]}
    roi = json.loads(process.ask("POST", f"{path}/rois", json.dumps(shapes))[1])["id"]
    status, found = process.ask("POST", f"{path}/findings", json.dumps({"roi": roi}))
    assert status == 201
    made = f"{path}/findings/{json.loads(found)['id']}"
    answers += [found, *(process.ask("GET", f"{made}.{kind}")[1] for kind in ("json", "csv", "png", "html"))]
    status, report = process.ask("GET", f"{made}.dcm")
    assert status == 200 and TELLTALE.encode() in report
    for answer in answers:
        assert_silent(answer)
    assert process.end() == (0, "situs: stopped; all scans were dropped\n", "")
