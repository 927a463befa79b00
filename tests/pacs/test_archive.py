"""What an archive can do wrong is one line, is repeated where that may help, and shows no secret."""

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pydicom
import pytest
from phantoms.dicom_case import write_scan

from situs.cli import main
from situs.errors import InputError
from situs.finding import Finding
from situs.labeler import Labeler
from situs.pacs.access import VARIABLE, Access, read_access
from situs.pacs.archive import Archive, ArchiveError, Series
from situs.pacs.work import Watcher

JSON = {"Content-Type": "application/dicom+json"}
SERIES = Series("1.2", "1.2.3")


class Stub:
    """A server that answers each request with the next of `answers`, and the last one for ever."""

    def __init__(self):
        stub = self
        self.answers, self.requests = [], []

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
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


# The watch


class FakeArchive:
    """Two segmentations; the second one's objects cannot be fetched while `down`."""

    def __init__(self):
        self.down, self.asked = True, []

    def series(self, modality, study=None, since=""):
        return [Series("1.2", "1.2.3", n_instances=2)]

    def instances(self, series):
        return ["1.1", "1.2"]


def test_the_watch_goes_on_after_errors_and_asks_a_failing_archive_more_and_more_rarely(monkeypatch):
    archive, tried = FakeArchive(), []

    def label_once(archive, series, instance, labeler, head_only):
        from situs.pacs.work import Labelled

        tried.append((watcher._looks, instance))
        if instance == "1.1":
            raise RuntimeError("Jane Doe")
        if archive.down:
            return Labelled(instance, error=ArchiveError("down", temporary=True))
        return Labelled(instance, findings=(object.__new__(Finding),))

    monkeypatch.setattr("situs.pacs.work._label_once", label_once)
    watcher = Watcher(archive, object.__new__(Labeler))
    results = [list(watcher.look()) for _ in range(8)]
    assert [str(one.error) for one in results[0]] == ["internal fault: RuntimeError", "down"]
    assert [look for look, instance in tried if instance == "1.2"] == [1, 2, 4, 8]
    assert [look for look, instance in tried if instance == "1.1"] == [1]
    archive.down = False
    later = [list(watcher.look()) for _ in range(20)]
    assert sum(len(result) for result in later) == 1
