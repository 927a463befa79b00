"""Requests that want too much, are malformed, slow or cut off: each is answered, and the server goes on."""

import gzip
import io
import json
import select
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import nibabel as nib
import numpy as np
import pytest
from phantoms import small_case
from phantoms.web_server import SCANS, multipart, read_answer, running

from situs.web import server
from situs.web.limits import Limits

JSON = {"Content-Type": "application/json"}
MIB = 2**20


def scan_bytes():
    return nib.Nifti1Image(small_case.head_hu(), small_case.AFFINE).to_bytes()


@pytest.fixture(scope="module")
def site():
    with running(upload_bytes=2 * MIB, files=20, voxels=2**18, json_bytes=10_000) as site:
        yield site


@pytest.fixture(autouse=True)
def goes_on(site):
    """After each test the server answers, and nothing of the test is left on its disk."""
    yield
    assert site.ask("GET", "/health").status == 200
    for _ in range(100):
        if not list(site.folder.iterdir()):
            break
        time.sleep(0.1)
    assert not list(site.folder.iterdir())


def test_a_request_that_says_that_it_is_too_large(site):
    """It is answered although all of it is sent before the answer is read."""
    connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
    content, kind = multipart([("a.nii", bytes(3 * MIB))])
    connection.request("POST", SCANS, content, site.headers() | {"Content-Type": kind})
    answer = read_answer(connection.getresponse())
    assert answer.status == 413 and "2,097,152 bytes" in answer.line
    connection.close()


def test_a_request_that_does_not_say_how_large_it_is(site):
    content, kind = multipart([("a.nii", bytes(3 * MIB))])
    chunks = iter([content[n : n + 2**16] for n in range(0, len(content), 2**16)])
    connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("POST", SCANS, chunks, site.headers() | {"Content-Type": kind}, encode_chunked=True)
    assert read_answer(connection.getresponse()).status == 413
    connection.close()


def test_too_much_json_too_many_files_and_fields(site):
    assert site.ask("POST", SCANS, b"[" * 20_000, **JSON).status == 413
    files = [(f"{n}.dcm", b"x") for n in range(21)]
    assert "at most 20" in site.send(SCANS, files).line
    assert site.send(SCANS, {"a": b"x"}, **{f"f{n}": "x" for n in range(9)}).status == 413
    assert site.send(SCANS, {"a": b"x"}, series="x" * 2000).status == 413


def test_a_gzip_that_unpacks_to_more_than_it_may(site):
    """256 x 256 x 4097 voxels, all of them 0, are half a megabyte."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((256, 256, 4097))
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(4):
            file.write(bytes(MIB))
    answer = site.send(SCANS, {"bomb.nii.gz": stream.getvalue()})
    assert answer.status == 422 and "expected at most 262,144" in answer.line


def test_a_zip_that_unpacks_to_more_than_it_may(site):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            archive.writestr(f"{n}.dcm", bytes(MIB))
            archive.filelist[n].file_size = 200 * MIB  # as its directory says; nothing is unpacked to see it
    answer = site.send(SCANS, {"bomb.zip": stream.getvalue()})
    assert answer.status == 422 and "unpacks to" in answer.line and str(site.folder) not in answer.line


@pytest.mark.parametrize(
    "name",
    [
        "../../../../tmp/x.nii",
        "/etc/passwd",
        "..\\..\\x.nii",
        "C:\\x.nii",
        "..",
        "",
        "a\x00b.nii",
        "x" * 300 + ".nii",
        "~/x",
    ],
)
def test_the_name_of_a_file_leads_nowhere_else(site, name):
    scan = site.send(SCANS, {name: scan_bytes()})
    assert scan.status == 201
    path = f"{SCANS}/{scan.json['id']}"
    roi = site.ask("POST", f"{path}/rois", {"shapes": [{"point": [0, 0, 10], "radius_mm": 9}]}).json["id"]
    shown = site.ask("POST", f"{path}/findings", {"roi": roi}).json["scan"]["name"]
    assert shown and not set(shown) & set("/\\\x00") and len(shown) <= 100 and shown != ".."
    site.ask("DELETE", path)


def test_a_zip_with_paths_out_of_it_writes_nothing(site, tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"../../../../../../../..{tmp_path}/climbed", b"x")
        archive.writestr(f"{tmp_path}/absolute", b"x")
    assert site.send(SCANS, {"a.zip": stream.getvalue()}).status == 422
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"example":1}',
        b'{"example":false}',
        b'{"examples":true}',
        b"\xff\xfe",
        b"{" * 5000,
        b'{"example":true,"more":1}',
    ],
)
def test_malformed_json(site, body):
    answer = site.ask("POST", SCANS, body, **JSON)
    assert answer.status == 400 and answer.line.startswith("the JSON is not as the description says")


@pytest.mark.parametrize(
    "shape",
    [
        {"point": [0, 0]},
        {"point": [0, 0, "0"]},
        {"point": [0, 0, 1e9]},
        {"point": [0, 0, 0], "radius_mm": -1},
        {"box": [[0, 0, 0]]},
        {"brush": {"points": []}},
        {"sphere": 1},
    ],
)
def test_malformed_shapes(site, shape):
    scan = site.send(SCANS, {"a.nii": scan_bytes()}).json["id"]
    assert site.ask("POST", f"{SCANS}/{scan}/rois", {"shapes": [shape]}).status == 400
    site.ask("DELETE", f"{SCANS}/{scan}")


def test_shapes_that_are_nothing_or_nowhere(site):
    path = f"{SCANS}/{site.send(SCANS, {'a.nii': scan_bytes()}).json['id']}"
    for body, words in (
        ({"shapes": [{}]}, "neither a box nor a point"),
        ({"shapes": [{"point": [5000, 0, 0]}]}, "meets the scan"),
        ({}, "either example or shapes"),
        ({"example": True}, "belong to the example scan"),
    ):
        answer = site.ask("POST", f"{path}/rois", body)
        assert answer.status == 422 and words in answer.line and str(site.folder) not in answer.line
    site.ask("DELETE", path)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
    ],
)
def test_a_body_of_another_type(site, kind):
    headers = {"Content-Type": kind} if kind else {}
    assert site.ask("POST", SCANS, b"hello", **headers).status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"--b0undary\r\n",
        b"--b0undary\r\nContent-Disposition: form-data\r\n\r\n",
        b'--b0undary\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\nabc',
        b"--b0undary\r\n" + b"X: " + b"y" * 10_000 + b"\r\n\r\nabc\r\n--b0undary--\r\n",
        b"--b0undary--\r\n",
    ],
)
def test_a_malformed_multipart_request(site, body):
    answer = site.ask("POST", SCANS, body, **{"Content-Type": "multipart/form-data; boundary=b0undary"})
    assert answer.status == 400 and answer.line


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"PK\x03\x04", b"hello", b"\x89PNG" + bytes(100), bytes(400)]
)
def test_a_file_that_is_no_scan(site, content):
    answer = site.send(SCANS, {"a.nii.gz": content})
    assert answer.status == 422 and "a.nii.gz" in answer.line and str(site.folder) not in answer.line


def test_a_hundred_scans_at_once(site):
    """Eight of a client are taken, and the others are told why not; another client is answered."""
    content = scan_bytes()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: site.send(SCANS, {"a.nii": content}, "the-hundred"), range(100)))
    taken = [answer for answer in answers if answer.status == 201]
    refused = [answer for answer in answers if answer.status != 201]
    assert len(taken) <= 8 and {answer.status for answer in refused} <= {429, 503}
    assert all(answer.headers["retry-after"] for answer in refused)
    while len(taken) < 8:
        taken.append(site.send(SCANS, {"a.nii": content}, "the-hundred"))
        assert taken[-1].status == 201
    assert "remove one" in site.send(SCANS, {"a.nii": content}, "the-hundred").line
    assert site.send(SCANS, {"a.nii": content}, "another-one").status == 201
    site.ask("DELETE", f"{SCANS}/{taken[0].json['id']}", client="the-hundred")
    assert site.send(SCANS, {"a.nii": content}, "the-hundred").status == 201


def begun_upload(site):
    """A connection that has sent the headers of an upload and its first line."""
    connection = site.raw()
    headers = "".join(f"{name}: {value}\r\n" for name, value in site.headers().items())
    head = (
        f"POST {SCANS} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}Content-Length: 9999\r\n"
    )
    connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
    return connection


def test_a_client_that_stops_in_the_middle(site):
    """It is told after the pause that it may make, and its slot is free again."""
    connection = begun_upload(site)
    answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408") and b"too slowly" in answer
    connection.close()
    assert site.service.uploads == 0


def test_a_client_that_sends_byte_by_byte(monkeypatch):
    """It never stops for long, but would take for ever. Others are answered meanwhile."""
    monkeypatch.setattr("situs.web.security._DRAIN_S", 0.2)
    with running(grace_s=0.5, least_rate=1000) as site, begun_upload(site) as connection:
        connection.sendall(b"Content-Disposition: form-data; name=x\r\n\r\n")
        for _ in range(300):
            if select.select([connection], [], [], 0.1)[0]:
                break
            connection.sendall(b"x")
            assert site.ask("GET", "/health").status == 200
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408") and b"too slowly" in answer
        assert site.service.uploads == 0


def test_a_client_that_goes_away_in_the_middle(site):
    content, kind = multipart([("a.nii", scan_bytes())])
    headers = "".join(f"{name}: {value}\r\n" for name, value in site.headers().items())
    head = f"POST {SCANS} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Type: {kind}\r\n"
    connection = site.raw()
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:50_000])
    connection.close()
    for _ in range(100):
        if site.service.uploads == 0:
            break
        time.sleep(0.1)
    assert site.service.uploads == 0


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"A" * 100_000]
)
def test_what_is_no_http(site, junk):
    connection = site.raw()
    connection.sendall(junk)
    connection.shutdown(1)
    connection.makefile("rb").read()
    connection.close()


def test_headers_that_never_end(monkeypatch):
    """Of the first request of a connection, and of a later one."""
    monkeypatch.setattr(server, "_HEADER_S", 0.3)
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running() as site:
        for start, answered in ((b"", 0), (b"GET /health HT", 0), (whole + whole[:20], 1)):
            connection = site.raw()
            connection.sendall(start)
            received = connection.makefile("rb").read()  # to the end of the connection
            assert received.count(b"HTTP/1.1 200 OK") == answered
            connection.close()


def test_limits_of_all_clients_together():
    content = scan_bytes()
    with running(scans=2) as site:
        names = [site.send(SCANS, {"a.nii": content}, f"client-{n}") for n in range(3)]
        assert [answer.status for answer in names] == [201, 201, 503]
    with running(held_bytes=int(1.5 * small_case.head_hu().nbytes)) as site:
        first, second = (site.send(SCANS, {"a.nii": content}) for _ in range(2))
        assert (first.status, second.status) == (201, 503) and "memory" in second.line
    with running(uploads=0) as site:
        assert "too many uploads" in site.send(SCANS, {"a.nii": content}).line
    with running(workers=1, waiting=-1) as site:
        assert "busy" in site.send(SCANS, {"a.nii": content}).line


def test_the_newest_results_of_a_scan_are_kept():
    with running(results=2) as site:
        path = f"{SCANS}/{site.send(SCANS, {'a.nii': scan_bytes()}).json['id']}"
        shapes = {"shapes": [{"point": [0, 0, 10], "radius_mm": 9}]}
        names = [site.ask("POST", f"{path}/rois", shapes).json["id"] for _ in range(3)]
        found = [site.ask("GET", f"{path}/rois/{name}/mask.nii.gz").status for name in names]
        assert found == [404, 200, 200]


def test_a_client_that_leaves_a_stream_ends_the_work():
    with running() as site:
        path = f"{SCANS}/{site.send(SCANS, {'a.nii': scan_bytes()}).json['id']}"
        shapes = {"shapes": [{"point": [0, 0, 10], "radius_mm": 9}]}
        roi = site.ask("POST", f"{path}/rois", shapes).json["id"]
        site.labeler.gate.clear()
        connection = HTTPConnection("127.0.0.1", site.port, timeout=30)
        headers = site.headers() | JSON | {"Accept": "text/event-stream"}
        connection.request("POST", f"{path}/findings", json.dumps({"roi": roi}), headers)
        assert connection.getresponse().read1(10)
        connection.close()
        time.sleep(0.5)
        site.labeler.gate.set()
        assert site.ask("POST", f"{path}/findings", {"roi": roi}).status == 201
        (held,) = site.service.store._scans.values()
        assert len(held.findings) == 1  # those of the stream were never made


def test_work_that_takes_too_long_is_ended():
    with running(work_s=0.0) as site:
        path = f"{SCANS}/{site.send(SCANS, {'a.nii': scan_bytes()}).json['id']}"
        shapes = {"shapes": [{"point": [0, 0, 10], "radius_mm": 9}]}
        roi = site.ask("POST", f"{path}/rois", shapes).json["id"]
        assert "too long" in site.ask("POST", f"{path}/findings", {"roi": roi}).line


def test_the_limits_fit_a_head_ct():
    """512 x 512 x 512 voxels of 16 bits can be sent unpacked, and eight such scans be held."""
    voxels = 512**3
    limits = Limits()
    assert limits.upload_bytes >= 2 * voxels and limits.voxels >= voxels
    assert limits.held_bytes >= limits.client_scans * 2 * voxels
