"""The routes: what a page and a program get, as the contract says."""

import csv
import gzip
import io
import json

import nibabel as nib
import numpy as np
import pytest
from phantoms import small_case
from phantoms.dicom_case import write_scan
from phantoms.findings_schema import read_findings
from phantoms.web_server import SCANS, running

from situs.report.html import read_texts
from situs.web import work


@pytest.fixture(scope="module")
def site():
    with running() as site:
        yield site


@pytest.fixture(scope="module")
def files():
    """A scan and a mask as the bytes of .nii.gz files."""
    pairs = (("scan", small_case.head_hu()), ("mask", small_case.lesion_mask()))
    return {name: nifti_bytes(data) for name, data in pairs}


@pytest.fixture
def client(request):
    return request.node.name[:50].replace("[", "-").replace("]", "-")


def nifti_bytes(data, affine=small_case.AFFINE):
    return gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), 1)


def read_nifti(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


@pytest.fixture
def scan(site, files, client):
    """The address of a scan of the small case."""
    answer = site.send(SCANS, {"head.nii.gz": files["scan"]}, client)
    assert answer.status == 201, answer.content
    return f"{SCANS}/{answer.json['id']}"


@pytest.fixture
def labelled(site, files, scan, client):
    """The address of the findings on the small case's three lesions."""
    roi = site.send(f"{scan}/rois", {"mask.nii.gz": files["mask"]}, client).json["id"]
    answer = site.ask("POST", f"{scan}/findings", {"roi": roi}, client)
    assert answer.status == 201
    return f"{scan}/findings/{answer.json['id']}"


def test_a_scan_is_read_and_shown_as_it_is(site, files, client):
    answer = site.send(SCANS, {"head.nii.gz": files["scan"]}, client)
    made = answer.json
    assert answer.status == 201 and made["slices"] == 6 and made["shape"] == list(small_case.SHAPE)
    assert made["voxel_mm"] == [3, 3, 5] and made["expires_in_s"] == 1800 and made["notes"] == []
    shown = site.ask("GET", f"{SCANS}/{made['id']}/image.nii.gz", client=client)
    assert shown.status == 200 and shown.headers["content-type"] == "application/gzip"
    image = read_nifti(shown.content)
    np.testing.assert_array_equal(np.asarray(image.dataobj), small_case.head_hu())
    np.testing.assert_allclose(image.affine, small_case.AFFINE)


def test_the_mask_numbers_the_lesions_as_the_findings_do(site, files, scan, client):
    made = site.send(f"{scan}/rois", {"mask.nii.gz": files["mask"]}, client)
    assert made.status == 201 and made.json["lesions"] == 3
    roi = made.json["id"]
    labels = np.asarray(
        read_nifti(site.ask("GET", f"{scan}/rois/{roi}/mask.nii.gz", client=client).content).dataobj
    )
    mask = small_case.lesion_mask()
    np.testing.assert_array_equal(labels > 0, mask > 0)
    found = site.ask("POST", f"{scan}/findings", {"roi": roi}, client).json["findings"]
    for number, finding in enumerate(found, start=1):
        assert set(mask[labels == number]) == {finding["roi_value"]}
        assert sorted({int(k) for k in np.nonzero(labels == number)[2]}) == finding["slices"]


def test_findings_are_the_document_of_situs_label(site, files, scan, client):
    roi = site.send(f"{scan}/rois", {"mask.nii.gz": files["mask"]}, client).json["id"]
    document = site.ask("POST", f"{scan}/findings", {"roi": roi}, client).json
    name = document.pop("id")
    stored = site.ask("GET", f"{scan}/findings/{name}.json", client=client)
    assert read_findings(stored.content.decode()) == document
    assert document["scan"]["name"] == "head.nii.gz" and len(document["findings"]) == 3


def test_findings_as_a_table(site, labelled, client):
    table = site.ask("GET", f"{labelled}.csv", client=client)
    rows = list(csv.DictReader(io.StringIO(table.content.decode())))
    assert [row["roi_value"] for row in rows] == ["1", "1", "7"]
    assert table.headers["content-disposition"] == 'attachment; filename="findings.csv"'
    for path in (f"{labelled}.png?lesion=4", f"{labelled}.png?lesion=0", f"{labelled}/references/1.png"):
        assert "no picture" in site.ask("GET", path, client=client).line
    assert site.ask("GET", f"{labelled}.png?lesion=x", client=client).status == 400
    assert site.ask("GET", f"{labelled}.pdf", client=client).status == 404


@pytest.mark.slow
def test_findings_as_a_page_and_pictures(site, labelled, client):
    page = site.ask("GET", f"{labelled}.html", client=client)
    assert page.headers["content-type"].startswith("text/html") and b"<!DOCTYPE html>" in page.content
    first, third = (site.ask("GET", f"{labelled}.png{q}", client=client) for q in ("", "?lesion=3"))
    for picture in (first, third):
        assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    assert first.content != third.content


def test_progress_is_streamed_and_then_the_findings(site, files, scan, client):
    roi = site.send(f"{scan}/rois", {"mask.nii.gz": files["mask"]}, client).json["id"]
    stream = site.ask("POST", f"{scan}/findings", {"roi": roi}, client, Accept="text/event-stream")
    assert stream.status == 200 and stream.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in stream.content.decode().strip().split("\n\n")]
    kinds = [first.removeprefix("event: ") for first, _ in events]
    told = [json.loads(second.removeprefix("data: ")) for _, second in events]
    assert kinds == ["progress"] * 3 + ["findings"]
    assert [(p["done"], p["total"]) for p in told[1:3]] == [(1, 2), (2, 2)]
    plain = site.ask("POST", f"{scan}/findings", {"roi": roi}, client).json
    assert {**told[-1], "id": ""} == {**plain, "id": ""}


def test_a_fault_within_a_stream_is_an_event(site, files, scan, client, monkeypatch):
    roi = site.send(f"{scan}/rois", {"mask.nii.gz": files["mask"]}, client).json["id"]

    def fail(*args):
        raise RuntimeError("DOE^JANE")

    monkeypatch.setattr(site.labeler, "label", fail, raising=False)
    stream = site.ask("POST", f"{scan}/findings", {"roi": roi}, client, Accept="text/event-stream")
    last = stream.content.decode().strip().split("\n\n")[-1]
    assert last == 'event: error\ndata: {"error":"internal fault: RuntimeError"}'
    plain = site.ask("POST", f"{scan}/findings", {"roi": roi}, client)
    assert (plain.status, plain.line) == (500, "internal fault: RuntimeError")


def test_shapes_are_regions_where_they_were_drawn(site, scan, client):
    """In mm of the image that is shown: the middles of three shapes are the middles of their lesions."""
    middles = [(-20.0, -10.0, 10.0), (15.0, 20.0, 10.0), (-5.0, 30.0, 15.0)]
    corner = np.array([12.0, 9.0, 6.0])
    shapes = [
        {"point": middles[0], "radius_mm": 9},
        {"box": [(middles[1] - corner).tolist(), (middles[1] + corner).tolist()]},
        {"brush": {"radius_mm": 8, "points": [[-9, 30, 15], [-5, 30, 15], [-1, 30, 15]]}, "name": "stroke"},
    ]
    made = site.ask("POST", f"{scan}/rois", {"shapes": shapes}, client)
    assert made.status == 201 and made.json["lesions"] == 3
    image = read_nifti(site.ask("GET", f"{scan}/rois/{made.json['id']}/mask.nii.gz", client=client).content)
    labels = np.asarray(image.dataobj)
    for number, middle in enumerate(middles, start=1):
        ijk = np.argwhere(labels == number)
        world = nib.affines.apply_affine(image.affine, ijk).mean(axis=0)
        np.testing.assert_allclose(world, middle, atol=1.5)
    found = site.ask("POST", f"{scan}/findings", {"roi": made.json["id"]}, client).json["findings"]
    assert [f["roi_name"] for f in found] == ["point", "box", "stroke"]


def test_shapes_can_be_drawn_on_a_scan_without_orientation(site, client):
    """As a file they are refused there, because nobody knows where its millimetres are."""
    header = nib.Nifti1Image(small_case.head_hu(), None)
    header.header.set_zooms((3, 3, 5))
    scan = site.send(SCANS, {"bare.nii": header.to_bytes()}, client).json
    assert any("orientation" in note for note in scan["notes"])
    path = f"{SCANS}/{scan['id']}/rois"
    image = read_nifti(site.ask("GET", f"{SCANS}/{scan['id']}/image.nii.gz", client=client).content)
    middle = nib.affines.apply_affine(image.affine, [30, 36, 3]).tolist()
    assert site.ask("POST", path, {"shapes": [{"point": middle, "radius_mm": 9}]}, client).status == 201
    file = {"schema": "situs.shapes/1", "space": "ras", "shapes": [{"point": middle}]}
    answer = site.send(path, {"shapes.json": json.dumps(file).encode()}, client)
    assert answer.status == 422 and answer.line.startswith("shapes.json: ")


def test_a_map_of_probabilities_needs_a_threshold(site, scan, client):
    likely = small_case.lesion_mask().astype(np.float32) / 8
    file = {"likely.nii.gz": nifti_bytes(likely)}
    assert site.send(f"{scan}/rois", file, client).status == 422
    made = site.send(f"{scan}/rois", file, client, threshold="0.8")
    assert made.json["lesions"] == 1
    assert "expected a number" in site.send(f"{scan}/rois", file, client, threshold="high").line


def test_the_example_is_in_the_package(site, client):
    scan = site.ask("POST", SCANS, {"example": True}, client)
    assert scan.status == 201 and scan.json["shape"] == [256, 256, 36]
    made = site.ask("POST", f"{SCANS}/{scan.json['id']}/rois", {"example": True}, client)
    assert made.json["lesions"] == 6


def test_dicom_files_a_zip_of_them_and_a_report_for_the_archive(site, tmp_path, client):
    pytest.importorskip("highdicom")
    import zipfile

    folder = write_scan(tmp_path / "ct")
    paths = sorted(folder.iterdir())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in paths:
            archive.write(path, f"DOE_JANE/{path.name}")
    for files in ([("IM01.dcm", path.read_bytes()) for path in paths], [("ct.zip", packed.getvalue())]):
        scan = site.send(SCANS, files, client).json
        assert scan["slices"] == 6
        path = f"{SCANS}/{scan['id']}"
        roi = site.ask(
            "POST", f"{path}/rois", {"shapes": [{"point": [0, 0, 0], "radius_mm": 20}]}, client
        ).json
        found = site.ask("POST", f"{path}/findings", {"roi": roi["id"]}, client)
        assert b"Jane" not in found.content and b"DOE" not in found.content
        report = site.ask("GET", f"{path}/findings/{found.json['id']}.dcm", client=client)
        assert report.status == 200 and report.content[128:132] == b"DICM" and b"P-0815" in report.content
    assert not list(site.folder.iterdir())


def test_no_structured_report_without_dicom(site, labelled, client):
    answer = site.ask("GET", f"{labelled}.dcm", client=client)
    assert answer.status == 422 and "is no DICOM" in answer.line


def test_a_missing_extra_is_named(site, labelled, client, monkeypatch):
    def missing(*args):
        raise ModuleNotFoundError("No module named 'highdicom'", name="highdicom")

    monkeypatch.setitem(work.FORMATS, "dcm", ("application/dicom", missing))
    answer = site.ask("GET", f"{labelled}.dcm", client=client)
    assert (answer.status, answer.line) == (501, "highdicom is not installed: pip install 'situs[dicom]'")


def test_several_series_are_a_question(site, tmp_path, client):
    files = [
        (f"{number}-{path.name}", path.read_bytes())
        for number in (2, 3)
        for path in write_scan(tmp_path / str(number), SeriesNumber=number).iterdir()
    ]
    question = site.send(SCANS, files, client)
    assert question.status == 409 and "choose one" in question.json["error"]
    series = question.json["series"]
    assert [s["slices"] for s in series] == [6, 6]
    assert {s["description"] for s in series} == {f"series {n}: axial CT, 6 images" for n in (2, 3)}
    chosen = site.send(SCANS, files, client, series=series[1]["id"])
    assert chosen.status == 201 and chosen.json["slices"] == 6
    assert "no CT series" in site.send(SCANS, files, client, series="99").line


def test_a_deleted_scan_is_gone(site, scan, client):
    assert site.ask("DELETE", scan, client=client).status == 204
    for method, path in (("GET", f"{scan}/image.nii.gz"), ("DELETE", scan), ("POST", f"{scan}/findings")):
        body = {"roi": "x"} if method == "POST" else None
        assert "there is no scan" in site.ask(method, path, body, client).line


def test_health_version_page_and_texts(site):
    assert site.ask("GET", "/health", **{"X-Situs-Token": None}).json == {"status": "ok"}
    assert site.ask("GET", "/version").json["bundle_name"] == "fake"
    assert site.ask("GET", "/static/report.json").json == read_texts()
    assert site.ask("HEAD", "/health").content == b""
