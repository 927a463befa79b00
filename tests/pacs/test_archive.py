"""What an archive can do wrong is one line, is repeated where that may help, and shows no secret."""

import io
import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pydicom
import pytest
from phantoms.dicom_case import write_scan

from situs.cli import main
from situs.errors import InputError
from situs.finding import Finding
from situs.pacs.access import VARIABLE, Access, read_access
from situs.pacs.archive import Archive, ArchiveError, Series
from situs.pacs.work import Labelled, Watcher

JSON = {"Content-Type": "application/dicom+json"}
SERIES = Series("1.2", "1.2.3")


class Stub:
    """A server that answers each request with the next of `answers`, and the last one for ever."""

    def __init__(self):
        stub = self
        self.answers, self.requests, self.delay = [], [], 0.0

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(stub.delay)
                stub.requests.append((self.command, self.path, dict(self.headers)))
                status, headers, body = stub.answers[0]
                if len(stub.answers) > 1:
                    stub.answers.pop(0)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv(VARIABLE, raising=False)
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def archive(stub, pauses):
    with Archive(Access(stub.url), pauses.append) as made:
        yield made


def found(*uids, tag="00080018"):
    return 200, JSON, json.dumps([{tag: {"vr": "UI", "Value": [uid]}} for uid in uids]).encode()


HTML = (200, {"Content-Type": "text/html"}, b"<html>Please log in, Jane Doe</html>")


@pytest.mark.parametrize(
    ("answer", "words", "repeated"),
    [
        ((401, {}, b""), "(401)", False),
        ((403, {}, b""), "(403)", False),
        ((404, {}, b""), "(404)", False),
        ((409, {}, b""), "(409", False),
        ((500, {}, b"Jane Doe"), "status 500", True),
        ((503, {}, b""), "status 503", True),
        ((429, {}, b""), "status 429", True),
        (HTML, "no DICOM JSON", False),
        ((200, JSON, b'{"error": "Jane Doe"}'), "results without the UID", False),
        ((200, JSON, b'["Jane Doe"]'), "no DICOMweb", False),
        ((200, JSON, b"[7"), "no DICOM JSON", False),
        ((200, JSON, b'[{"00100010": {"Value": ["Jane Doe"]}}]'), "results without the UID", False),
        ((200, {**JSON, "Content-Length": "999"}, b"[]"), "try later", True),
    ],
)
def test_a_wrong_answer_is_one_line_and_repeated_if_that_may_help(
    stub, archive, pauses, answer, words, repeated
):
    stub.answers = [answer]
    with pytest.raises(ArchiveError) as error:
        archive.series("SEG")
    assert words in str(error.value) and "\n" not in str(error.value) and "Jane" not in str(error.value)
    assert pauses == ([1, 2, 4] if repeated else [])
    assert error.value.temporary == repeated


def test_an_archive_that_recovers_is_waited_for(stub, archive, pauses):
    stub.answers = [(503, {}, b""), (500, {}, b""), found("1.2.3.4")]
    assert archive.instances(SERIES) == ["1.2.3.4"] and pauses == [1, 2]


def test_an_archive_that_is_down_is_one_line(stub, archive, pauses):
    stub.server.shutdown()
    stub.server.server_close()
    with pytest.raises(ArchiveError, match="cannot be reached") as error:
        archive.series("SEG")
    assert error.value.temporary and len(pauses) == 3


def test_long_results_are_fetched_page_by_page_and_end_if_the_offset_is_not_heeded(stub, archive):
    first, second = [f"1.{n}" for n in range(100)], [f"2.{n}" for n in range(7)]
    stub.answers = [found(*first), found(*second)]
    assert archive.instances(SERIES) == first + second
    assert "offset=100" in stub.requests[1][1]
    stub.answers = [found(*first)]
    assert archive.instances(SERIES) == first


def multipart(*parts, end=b"\r\n--XX--"):
    body = b"".join(b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    kind = 'multipart/related; type="application/dicom"; boundary=XX'
    return 200, {"Content-Type": kind}, body[:-2] + end


@pytest.fixture
def files(tmp_path):
    return [path.read_bytes() for path in sorted(write_scan(tmp_path / "ct").iterdir())]


def uid_of(file):
    return str(pydicom.dcmread(io.BytesIO(file), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def test_a_series_comes_whole(stub, archive, files, tmp_path):
    (tmp_path / "out").mkdir()
    stub.answers = [found(*map(uid_of, files)), multipart(*files)]
    assert archive.fetch_series(SERIES, tmp_path / "out") == set(map(uid_of, files))
    assert {path.read_bytes() for path in (tmp_path / "out").iterdir()} == set(files)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda files: multipart(*files[:-1]), "1 of 6 images of the series did not come"),
        (lambda files: multipart(*files[:-1], files[-1][:100], end=b""), "no DICOMweb"),
        (lambda files: HTML, "no DICOMweb"),
    ],
)
def test_a_series_that_does_not_come_whole_is_refused(stub, archive, files, tmp_path, spoil, words):
    (tmp_path / "out").mkdir()
    stub.answers = [found(*map(uid_of, files)), spoil(files)]
    with pytest.raises(ArchiveError, match=words):
        archive.fetch_series(SERIES, tmp_path / "out")


def test_a_report_that_is_there_already_is_left_alone_and_another_conflict_is_an_error(stub, archive, files):
    stub.answers = [(409, {}, b""), found(uid_of(files[0]))]
    archive.store(files[0], "1.2")
    assert [request[0] for request in stub.requests] == ["POST", "GET"]
    stub.answers = [(409, {}, b""), (204, {}, b"")]
    with pytest.raises(ArchiveError, match="409"):
        archive.store(files[0], "1.2")


def test_a_report_that_the_archive_does_not_take_is_an_error(stub, archive, files):
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}
    stub.answers = [(200, JSON, json.dumps(failed).encode())]
    with pytest.raises(ArchiveError, match="failure reason 0x0110"):
        archive.store(files[0], "1.2")


# The secret


@pytest.mark.parametrize(
    ("line", "header"),
    [("bearer TOKEN.17=", "Bearer TOKEN.17="), ("basic user:pass:word", "Basic dXNlcjpwYXNzOndvcmQ=")],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_the_secret_of_a_file_or_of_the_environment_is_sent(
    stub, monkeypatch, tmp_path, line, header, in_file
):
    path = None
    if in_file:
        path = tmp_path / "auth"
        path.write_text(f"{line}\n")
    else:
        monkeypatch.setenv(VARIABLE, line)
    stub.answers = [found()]
    access = read_access(stub.url, path)
    with Archive(access) as archive:
        archive.series("SEG")
    assert stub.requests[0][2]["Authorization"] == header
    assert line.split()[1] not in repr(access)


def test_the_secret_is_not_sent_on_to_another_server(stub, monkeypatch):
    monkeypatch.setenv(VARIABLE, "bearer TOKEN")
    other = Stub()
    other.answers = [found()]
    stub.answers = [(302, {"Location": f"{other.url}/series"}, b"")]
    with Archive(read_access(stub.url)) as archive:
        assert archive.series("SEG") == []
    other.server.shutdown()
    other.server.server_close()
    assert "Authorization" in stub.requests[0][2]
    assert "Authorization" not in other.requests[0][2]


@pytest.mark.parametrize(
    ("url", "auth", "words"),
    [
        ("https://user:word@host/x", None, "--url: give the address alone"),
        ("https://host/x?token=word", None, "--url: give the address alone"),
        ("ftp://host/word", None, "--url: expected https"),
        ("https://[word", None, "--url: expected https"),
        ("http://host/x", "bearer word", "unencrypted"),
        ("https://host/x", "word", "expected one line"),
        ("https://host/x", "basic word", "expected one line"),
        ("https://host/x", "bearer wo\nrd", "expected one line"),
        ("https://host/x", "", "expected one line"),
    ],
)
def test_what_is_wrong_with_the_access_is_one_line_without_the_secret(
    monkeypatch, capsys, tmp_path, url, auth, words
):
    monkeypatch.delenv(VARIABLE, raising=False)
    if auth is not None:
        monkeypatch.setenv(VARIABLE, auth)
    assert main(["pacs", "label", "1.2.3", "--url", url]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err and "word" not in err.replace("password", "")


def test_files_of_the_access_that_are_missing_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_access("https://host", tmp_path / "absent")
    with pytest.raises(InputError, match="--ca-file"):
        read_access("https://host", None, tmp_path / "absent")
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(InputError, match="--ca-file"):
        read_access("https://host", None, tmp_path / "text")


# The watch


class FakeWorker:
    """Two segmentations. The first sets off a fault; the archive fails for the second while it is `down`."""

    def __init__(self):
        self.archive, self.down, self.tried = self, True, []

    def series(self, modality, study=None, since=""):
        return [Series("1.2", "1.2.3", n_instances=2)]

    def instances(self, series):
        return ["1.1", "1.2"]

    def label_once(self, series, instance):
        self.tried.append(instance)
        if instance == "1.1":
            raise RuntimeError("Jane Doe")
        if self.down:
            return Labelled(instance, error=ArchiveError("down", temporary=True))
        return Labelled(instance, findings=(object.__new__(Finding),))


def test_the_watch_goes_on_after_errors_and_asks_a_failing_archive_more_and_more_rarely():
    worker = FakeWorker()
    watcher = Watcher(worker)
    results, tried = [], []
    for _ in range(8):
        worker.tried.clear()
        results.append(list(watcher.look()))
        tried.append(list(worker.tried))
    assert [str(one.error) for one in results[0]] == ["internal fault: RuntimeError", "down"]
    assert tried == [["1.1", "1.2"], ["1.2"], [], ["1.2"], [], [], [], ["1.2"]]
    worker.down = False
    later = [list(watcher.look()) for _ in range(20)]
    assert sum(len(result) for result in later) == 1


def test_an_archive_that_is_slow_is_one_line(stub, monkeypatch):
    monkeypatch.setattr("situs.pacs.archive._TIMEOUT_S", 0.05)
    stub.answers = [(200, {**JSON, "Content-Length": "9"}, b"")]
    with Archive(Access(stub.url), pause=lambda seconds: None) as archive:
        stub.delay = 0.2
        with pytest.raises(ArchiveError, match="does not answer in time") as error:
            archive.series("SEG")
    assert error.value.temporary


@pytest.mark.slow
def test_a_failing_archive_prints_one_line_and_no_more():
    """As a process, because pytest takes what loggers would print."""
    args = ["pacs", "label", "1.2.3", "--url", "http://127.0.0.1:9"]
    code = "import situs.pacs.archive as a, sys; a._FIRST_PAUSE_S = 0; from situs.cli import main; "
    command = [sys.executable, "-c", f"{code}sys.exit(main({args!r}))"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "") and run.stderr.count("\n") == 1
    assert "cannot be reached" in run.stderr


# TLS


def test_a_certificate_is_checked_and_one_of_the_archives_own_can_be_trusted(stub, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext"
    command = [*command.split(), "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    stub.server.socket = context.wrap_socket(stub.server.socket, server_side=True)
    stub.answers = [found(tag="0020000E")]
    url = stub.url.replace("http:", "https:")
    with Archive(read_access(url)) as archive, pytest.raises(ArchiveError, match="--ca-file") as error:
        archive.series("SEG")
    assert not error.value.temporary
    with Archive(read_access(url, ca_file=certificate)) as archive:
        assert archive.series("SEG") == []
