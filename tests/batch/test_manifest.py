"""The rows of a manifest: what each says, and which cannot be used."""

import pytest

from situs.batch.manifest import Case, Manifest, find_pairs
from situs.errors import InputError, ManifestError

HEAD = "scan,roi,id,series,mask_space\n"


def manifest(tmp_path, text, name="m.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest(path)


def errors(rows):
    return [case.error for case in rows]


def test_rows_in_their_order_with_optional_columns(tmp_path):
    rows = manifest(tmp_path, "extra,roi,scan,mask_space\nx, b , a ,world\n\n,d,c,\n")
    assert len(rows) == 2 and rows.folder == tmp_path
    assert list(rows) == [Case(1, "", "a", "b", "", "world"), Case(2, "", "c", "d")]
    assert list(rows) == list(rows)
    with_bom = manifest(tmp_path, b"\xef\xbb\xbfscan,roi,id,series\r\na,b,i,3\r\n")
    assert list(with_bom) == [Case(1, "i", "a", "b", "3")]


def test_rows_that_cannot_be_used_have_an_error(tmp_path):
    text = f"{HEAD},b\na,\na,b,i,,sideways\na,b,c,d,,f,g\n".encode() + b"\xff,b\na," + b"x" * 200_000
    rows = manifest(tmp_path, text + b"\ngood,b\n")
    assert len(rows) == 7
    words = ["scan is empty", "roi is empty", "sideways", "more cells", "UTF-8", "limit", ""]
    assert all(word in error for word, error in zip(words, errors(rows), strict=True))
    assert list(rows)[-1] == Case(7, "", "good", "b")


def test_duplicates_name_the_first_row(tmp_path):
    rows = manifest(tmp_path, f"{HEAD}a,b,1\na,c,2\na,b,3\nd,e,2\na,b,,7\n,b,1\n")
    assert [bool(error) for error in errors(rows)] == [False, False, True, True, False, True]
    assert "same scan and ROI stands in row 1" in errors(rows)[2]
    assert "id '2' stands in row 2" in errors(rows)[3]
    assert "scan is empty" in errors(rows)[5]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "lacks the column 'scan'"),
        ("scan,mask\na,b\n", "lacks the column 'roi'"),
        (HEAD, "has no rows"),
        (b"PAR1 and no more", "Parquet"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, words):
    if content == b"PAR1 and no more":
        pytest.importorskip("pyarrow")
    with pytest.raises(ManifestError, match=words):
        manifest(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(ManifestError, match="is not a file"):
            Manifest(path)


def test_parquet_says_the_same_as_csv(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {"scan": ["a", None, "c"], "roi": ["b", "b", "d"], "series": [3, None, 4], "other": [1.5, 2, 3]}
    write_table(pa.table(columns), tmp_path / "m.parquet")
    text = manifest(tmp_path, "scan,roi,series\na,b,3\n,b,\nc,d,4\n")
    assert list(Manifest(tmp_path / "m.parquet")) == list(text)


def test_patterns_are_paired_by_what_the_star_stands_for(tmp_path):
    for name in ("scans/p[1]_a.nii", "scans/p[1]_c.nii", "rois/a/m.nii", "rois/b/m.nii", "scans/p1_d.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    a, b, c = manifest(tmp_path, find_pairs(f"{tmp_path}/scans/p[1]_*.nii", f"{tmp_path}/rois/*/m.nii"))
    assert a == Case(1, "a", f"{tmp_path}/scans/p[1]_a.nii", f"{tmp_path}/rois/a/m.nii")
    assert (b.id, b.scan, c.id, c.roi) == ("b", "", "c", "")
    assert "scan is empty" in b.error and "roi is empty" in c.error


@pytest.mark.parametrize(("scans", "words"), [("a/*/*", "one '\\*'"), ("a", "one '\\*'"), ("a/*", "no file")])
def test_patterns_that_cannot_be_used_are_refused(tmp_path, scans, words):
    with pytest.raises(InputError, match=words):
        find_pairs(scans, f"{tmp_path}/absent/*")
