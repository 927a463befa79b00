import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import (
    CT,
    assert_is_head,
    assert_one_line,
    dicom_slices,
    head_hu,
    pixel_grid,
    write_dicom,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from situs.errors import ScanError
from situs.io import read_volume

GE = CT / "ge"
needs_ge = pytest.mark.skipif(not GE.is_dir(), reason="the real scans are not here")


def localizer(**tags):
    (one,) = dicom_slices([0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **{"SeriesNumber": 1, **tags})
    return [one]


def dcm2niix(folder, out):
    from dcm2niix import bin as program

    out.mkdir()
    subprocess.run([program, "-o", out, "-f", "x", "-b", "n", folder], check=True, capture_output=True)
    return out


# Geometry


def test_the_images_of_a_scan_are_named_in_the_order_of_its_slices(tmp_path):
    slices = dicom_slices([16, -8, 0, 8])
    source = read_volume(write_dicom(tmp_path / "ct", slices)).source
    upward = [slices[n] for n in (1, 2, 3, 0)]
    assert [i.instance for i in source.images] == [ds.SOPInstanceUID for ds in upward]
    assert {(i.sop_class, i.series, i.frame) for i in source.images} == {
        (slices[0].SOPClassUID, slices[0].SeriesInstanceUID, 0)
    }
    assert (source.study, source.frame_of_reference, source.are_slices) == (
        slices[0].StudyInstanceUID,
        slices[0].FrameOfReferenceUID,
        True,
    )


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"turn_deg": 33},
        {"tilt_deg": 18.5},
        {"tilt_deg": -12, "turn_deg": -20},
        {"heights": [-72, -68, -64, -57, -50, -43, -36, -20, 0, 3, 10, 40]},
        {"heights": list(range(72, -73, -9))},
    ],
    ids=str,
)
def test_every_slice_lies_where_its_header_puts_it(tmp_path, case):
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(**case)))
    assert volume.hu.shape == (48, 56, volume.hu.shape[2]) and volume.hu.dtype == np.int16
    assert (np.diff(volume.geometry.heights_mm) > 0).all()
    assert_is_head(volume)
    assert volume.geometry.tilt_deg == pytest.approx(abs(case.get("tilt_deg", 0)), abs=1e-3)
    assert any("tilt" in a for a in volume.assumptions) == ("tilt_deg" in case)


@pytest.mark.parametrize("turn", [0, 33])
def test_dcm2niix_puts_the_same_hu_at_the_same_place(tmp_path, turn):
    folder = write_dicom(tmp_path / "ct", dicom_slices(turn_deg=turn))
    (path,) = dcm2niix(folder, tmp_path / "out").glob("*.nii")
    image = nibabel.load(path)
    oracle = np.asanyarray(image.dataobj)
    volume = read_volume(folder)
    inverse = np.linalg.inv(image.affine)
    for k in range(volume.geometry.shape[2]):
        ijk = pixel_grid(volume.geometry, k)
        at = volume.geometry.to_world(ijk) @ inverse[:3, :3].T + inverse[:3, 3]
        np.testing.assert_allclose(at, at.round(), atol=1e-2)
        np.testing.assert_array_equal(volume.hu[tuple(ijk.T)], oracle[tuple(at.round().astype(int).T)])


@needs_ge
def test_the_tilted_uneven_ge_series_agrees_with_dcm2niix():
    """Its file is interpolated between slices; where a slice of ours falls on one of it, HU agree."""
    volume = read_volume(GE)
    image = nibabel.load(CT / "landmarks" / "ge_tilt_corrected.nii.gz")
    oracle, inverse = np.asanyarray(image.dataobj), np.linalg.inv(image.affine)
    compared = 0
    for k in range(28):
        ijk = pixel_grid(volume.geometry, k)
        at = volume.geometry.to_world(ijk) @ inverse[:3, :3].T + inverse[:3, 3]
        assert np.ptp(at[:, 2]) < 1e-3  # the slices are parallel
        low = at[:, 2].mean() - 1e-6
        if abs(low - round(low)) > 0.1:
            continue
        i, j = np.floor(at[:, 0] + 1e-4).astype(int), np.floor(at[:, 1]).astype(int)
        share = at[:, 1] - j
        inside = (j >= 0) & (j < oracle.shape[1] - 1)
        i, j, share, mine = i[inside], j[inside], share[inside], volume.hu[tuple(ijk[inside].T)]
        s = round(low)
        theirs = oracle[i, j, s] * (1 - share) + oracle[i, j + 1, s] * share
        head = theirs > -900
        assert np.corrcoef(theirs[head], mine[head])[0, 1] > 0.99
        assert np.median(np.abs(theirs[head] - mine[head])) < 4
        compared += 1
    assert compared >= 3


@needs_ge
def test_what_is_special_about_the_ge_series_is_said():
    volume = read_volume(GE)
    assert volume.name == "ge" and volume.hu.shape == (512, 512, 28)
    assert volume.geometry.tilt_deg == pytest.approx(18.5, abs=0.01)  # its GantryDetectorTilt
    tables = np.diff(volume.geometry.origins[:, 2])  # its table steps, as its provider gives them
    assert {round(float(t), 1) for t in tables} == {4.2, 1.1, 7.4}
    said = " ".join(volume.assumptions)
    assert "tilt of 18.5 degrees" in said and "uneven (1.1, 4, 7 mm)" in said


def test_missing_slices_are_said(tmp_path):
    heights = [h for h in range(-72, 73, 8) if h not in (-8, 0, 40)]
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(heights)))
    assert_is_head(volume)
    assert any("3 slices are missing" in a and "8 and 9, 12 and 13" in a for a in volume.assumptions)


def test_even_slices_say_nothing(tmp_path):
    assert read_volume(write_dicom(tmp_path / "ct", dicom_slices())).assumptions == ()


# Values


@pytest.mark.parametrize("intercept", [0, -1024, -1000])
def test_rescaling_signed_and_unsigned(tmp_path, intercept):
    assert_is_head(read_volume(write_dicom(tmp_path / "ct", dicom_slices(intercept=intercept))))


def test_rescaling_is_each_slices_own(tmp_path):
    slices = dicom_slices()
    for n, ds in enumerate(slices):
        stored = np.frombuffer(ds.PixelData, "<u2").astype(int) - 1024
        ds.RescaleIntercept = -1024 - n
        ds.PixelData = (stored + 1024 + n).astype("<u2").tobytes()
    assert_is_head(read_volume(write_dicom(tmp_path / "ct", slices)))


def test_a_fractional_slope_gives_floats(tmp_path):
    slices = dicom_slices()
    for ds in slices:
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") * 2).astype("<u2").tobytes()
        ds.RescaleSlope = 0.5
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu.dtype == np.float32
    assert_is_head(volume)


def test_the_missing_intercept_is_noticed(tmp_path):
    slices = dicom_slices()
    for ds in slices:
        del ds.RescaleIntercept, ds.RescaleSlope
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert_is_head(volume)
    assert any("HU + 1024" in a for a in volume.assumptions)


@pytest.mark.parametrize("padding", [0, 40, -2000])
def test_padding_is_air_even_if_its_value_is_a_tissues(tmp_path, padding):
    def padded(world):
        hu = head_hu(world)
        return np.where(np.linalg.norm(world[:, :2], axis=1) > 105, padding, hu)

    slices = dicom_slices(hu=padded, intercept=0)
    for ds in slices:
        ds.add_new("PixelPaddingValue", "SS", padding)
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu[0, 0].max() == -1024
    centre = volume.hu[:, :, 9]
    brain = head_hu(volume.geometry.to_world(pixel_grid(volume.geometry, 9, 1))).reshape(48, 56)
    inside = (brain > 15) & (brain < 80)
    assert (brain[inside] == 40).any()
    assert np.array_equal(centre[inside], brain[inside])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels(tmp_path, syntax):
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    slices = dicom_slices()
    for ds in slices:
        ds.compress(syntax, generate_instance_uid=False)
    assert_is_head(read_volume(write_dicom(tmp_path / "ct", slices)))


def test_a_missing_codec_names_the_pip_line(tmp_path, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    slices = dicom_slices()
    for ds in slices:
        ds.compress(RLELossless, generate_instance_uid=False)
    monkeypatch.setattr(Decoder, "is_available", False)
    with pytest.raises(ScanError) as error:
        read_volume(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, "RLE Lossless", "pip install 'situs[codecs]'")


def test_enhanced_multi_frame_ct(tmp_path):
    slices = dicom_slices(turn_deg=20)
    one = slices[0]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for tag in (
        "SeriesInstanceUID", "StudyInstanceUID", "Modality", "SeriesNumber", "ImageType", "Rows", "Columns",
        "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation",
    ):  # fmt: skip
        setattr(ds, tag, getattr(one, tag))
    shared = Dataset()
    for sequence, tags in {
        "PixelMeasuresSequence": ["PixelSpacing"],
        "PlaneOrientationSequence": ["ImageOrientationPatient"],
        "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept"],
    }.items():
        setattr(shared, sequence, [Dataset()])
        for tag in tags:
            setattr(getattr(shared, sequence)[0], tag, getattr(one, tag))
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.NumberOfFrames = len(slices)
    frames = []
    for s in slices:
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = s.ImagePositionPatient
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = frames
    ds.PixelData = b"".join(s.PixelData for s in slices)
    ds.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "enhanced.dcm")
    assert volume.hu.shape == (48, 56, len(slices))
    assert_is_head(volume)


# Which images


def test_zip_and_folder_are_the_same_and_the_zip_is_not_unpacked(tmp_path):
    folder = write_dicom(tmp_path / "ct" / "deep" / "er", dicom_slices(tilt_deg=10))
    (folder / "readme.txt").write_text("not an image " * 50)
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    with zipfile.ZipFile(tmp_path / "ct.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"../../{path.name}")
    before = sorted(tmp_path.rglob("*"))
    a, b = read_volume(tmp_path / "ct"), read_volume(tmp_path / "ct.zip")
    assert sorted(tmp_path.rglob("*")) == before
    assert np.array_equal(a.hu, b.hu) and np.array_equal(a.geometry.origins, b.geometry.origins)
    assert (a.name, b.name) == ("ct", "ct.zip") and a.assumptions == b.assumptions


def test_a_single_file_is_one_slice(tmp_path):
    write_dicom(tmp_path / "ct", dicom_slices([0, 8]))
    volume = read_volume(tmp_path / "ct" / "a000.dcm")
    assert volume.hu.shape == (48, 56, 1)
    assert_is_head(volume)


def test_files_without_preamble_are_dicom_too(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert_is_head(read_volume(folder))


def many_series(folder):
    """A localizer, coronal reformats, soft and bone kernel, a derived series, a report, another modality."""
    write_dicom(folder, localizer(), "l")
    write_dicom(folder, dicom_slices(ConvolutionKernel="H30s"), "soft")
    write_dicom(folder, dicom_slices(range(-76, 77, 4), ConvolutionKernel="H70h", SeriesNumber=3), "bone")
    write_dicom(
        folder,
        dicom_slices(SeriesNumber=4, ImageType=["DERIVED", "SECONDARY", "AXIAL"], turn_deg=5),
        "derived",
    )
    coronal = dicom_slices(SeriesNumber=5)
    for n, ds in enumerate(coronal):
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        ds.ImagePositionPatient = [-90, n * 5, 100]
    write_dicom(folder, coronal, "coronal")
    write_dicom(folder, dicom_slices(Modality="MR", SeriesNumber=6), "mr")
    write_dicom(folder, dicom_slices([0, 8], SeriesNumber=7), "two")
    report = localizer(SOPClassUID=ComputedRadiographyImageStorage, SeriesNumber=8)
    del report[0].Rows
    return write_dicom(folder, report, "report")


def test_the_axial_soft_original_head_series_is_chosen_and_why_is_said(tmp_path):
    folder = many_series(tmp_path / "study")
    volume = read_volume(folder)
    assert volume.hu.shape[2] == 19
    assert_is_head(volume)
    (said,) = volume.assumptions
    assert said.startswith("Series 2 was read (19 slices)")
    for other in (
        "series 1 (localizer CT, 1 image)", "series 3 (axial CT, 39 images): sharp kernel",
        "series 4 (axial CT, 19 images): derived", "series 5 (coronal CT, 19 images)",
        "series 6 (axial MR, 19 images)", "series 7 (axial CT, 2 images)",
    ):  # fmt: skip
        assert other in said, other


def test_the_series_can_be_asked_for_by_number_or_uid(tmp_path):
    folder = many_series(tmp_path / "study")
    bone = read_volume(folder, series="3")
    assert bone.hu.shape[2] == 39 and "as asked for" in bone.assumptions[0]
    from pydicom import dcmread

    uid = str(dcmread(folder / "bone000.dcm").SeriesInstanceUID)
    assert np.array_equal(read_volume(folder, series=uid).hu, bone.hu)


@pytest.mark.parametrize("series", ["9", "two"])
def test_a_series_that_is_not_there_lists_those_that_are(tmp_path, series):
    with pytest.raises(ScanError) as error:
        read_volume(many_series(tmp_path / "study"), series=series)
    assert_one_line(error, f"no CT series {series}", "series 2 (axial CT, 19 images)", "coronal")


@pytest.mark.parametrize(("series", "what"), [("1", "localizer CT, 1 image"), ("7", "axial CT, 2 images")])
def test_a_series_that_is_no_scan_is_named_for_what_it_is(tmp_path, series, what):
    with pytest.raises(ScanError) as error:
        read_volume(many_series(tmp_path / "study"), series=series)
    assert_one_line(error, f"series {series} is no CT that can be read", what)


def test_two_series_of_one_number_must_be_told_apart(tmp_path):
    write_dicom(tmp_path / "ct", dicom_slices(), "a")
    write_dicom(tmp_path / "ct", dicom_slices(), "b")
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "ct", series="2")
    assert_one_line(error, "SeriesInstanceUID")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"BodyPartExamined": "CHEST"}, "not the head"),
        ({"ContrastBolusAgent": "X"}, "contrast medium"),
        ({"ConvolutionKernel": "BONE"}, "sharp kernel"),
        ({"WindowWidth": 3000, "WindowCenter": 600}, "sharp kernel"),
        ({"heights": range(-72, 0, 2)}, "covers less"),
        ({"heights": range(-72, 73, 9)}, "fewer slices"),
    ],
)
def test_the_other_series_loses_for_its_reason(tmp_path, other, reason):
    write_dicom(tmp_path / "ct", dicom_slices(**other, SeriesNumber=1), "a")
    write_dicom(tmp_path / "ct", dicom_slices(BodyPartExamined=other.get("BodyPartExamined") and "HEAD"), "b")
    (said,) = read_volume(tmp_path / "ct").assumptions
    assert said.startswith("Series 2 was read") and f": {reason}" in said


def test_a_localizer_inside_the_series_is_left_out(tmp_path):
    slices = dicom_slices()
    (scout,) = localizer()
    scout.SeriesInstanceUID, scout.SeriesNumber = slices[0].SeriesInstanceUID, 2
    volume = read_volume(write_dicom(tmp_path / "ct", [scout, *slices]))
    assert volume.hu.shape[2] == 19
    assert "series 2 (localizer CT, 1 image)" in volume.assumptions[0]


def test_doubles_are_used_once_and_said(tmp_path):
    slices = dicom_slices()
    write_dicom(tmp_path / "ct", slices)
    write_dicom(tmp_path / "ct", slices[3:5], "copy")
    volume = read_volume(tmp_path / "ct")
    assert volume.hu.shape[2] == 19
    assert_is_head(volume)
    assert any("2 further copies of slices" in a for a in volume.assumptions)


@pytest.mark.parametrize("harm", ["cut early", "cut late", "position"])
def test_damaged_headers_are_said(tmp_path, harm):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    raw = bytearray((folder / "a018.dcm").read_bytes())
    if harm == "position":
        at = raw.index(b"\x20\x00\x32\x00") + 8
        raw[at : at + 3] = b"abc"
    (folder / "a018.dcm").write_bytes(raw[: {"cut early": 200, "cut late": 480}.get(harm)])
    volume = read_volume(folder)
    assert volume.hu.shape[2] == 18
    assert_is_head(volume)
    assert any("1 damaged DICOM file was skipped" in a for a in volume.assumptions)


# What is refused


def broken(kind, folder):
    slices = dicom_slices()
    third = slices[3]
    if kind == "duplicate":
        third.ImagePositionPatient = slices[4].ImagePositionPatient
    elif kind == "skewed":
        for ds in slices:
            ds.ImageOrientationPatient = [1, 0, 0, 0.6, 0.8, 0]
    elif kind == "colours":
        for ds in slices:
            ds.PhotometricInterpretation = "PALETTE COLOR"
    elif kind == "short pixels":
        third.PixelData = third.PixelData[:100]
    elif kind == "no pixels":
        del third.PixelData
    elif kind == "no position":
        for ds in slices:
            del ds.ImagePositionPatient
    elif kind == "mr":
        for ds in slices:
            ds.Modality = "MR"
    elif kind == "localizer":
        slices = localizer()
    elif kind == "constant":
        for ds in slices:
            ds.PixelData = b"\0" * len(ds.PixelData)
    write_dicom(folder, slices)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("duplicate", "different slices at the same position"),
        ("skewed", "perpendicular"),
        ("colours", "PALETTE COLOR"),
        ("short pixels", "DICOM file 4 of 19: truncated or corrupt pixels"),
        ("no pixels", "DICOM file 4 of 19: truncated or corrupt pixels"),
        ("no position", "series 2 cannot be placed in the patient: ImagePositionPatient is missing"),
        ("mr", "series 2 (axial MR, 19 images)"),
        ("localizer", "series 1 (localizer CT, 1 image)"),
        ("constant", "same value"),
    ],
)
def test_what_is_no_stack_of_ct_slices_is_refused_in_one_line(tmp_path, kind, words):
    broken(kind, tmp_path / "ct")
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "ct")
    assert_one_line(error, "ct", words)


def test_a_file_cut_in_its_pixels_is_refused(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    path = folder / "a005.dcm"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ScanError) as error:
        read_volume(folder)
    assert_one_line(error, "DICOM file 6 of ", "truncated or corrupt")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    folder = write_dicom(tmp_path / "ct", dicom_slices())

    def refuse(self, *args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ScanError) as error:
        read_volume(folder)
    assert_one_line(error, "a file or folder in it cannot be read (Permission denied)")


@pytest.mark.parametrize("content", ["nothing", "text"])
def test_a_folder_without_dicom(tmp_path, content):
    (tmp_path / "ct").mkdir()
    if content == "text":
        (tmp_path / "ct" / "a.txt").write_text("hello " * 100)
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "ct")
    assert_one_line(error, "no DICOM image")


@pytest.mark.parametrize("harm", ["cut", "encrypted", "flipped", "empty"])
def test_broken_zips(tmp_path, harm):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    path = tmp_path / "ct.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()) if harm != "empty" else []:
            archive.write(file, file.name)
    raw = bytearray(path.read_bytes())
    if harm == "cut":
        raw = raw[: len(raw) // 2]
    elif harm == "flipped":
        raw[600] ^= 0xFF
    elif harm == "encrypted":  # the flag in the central directory, offset 8 of its first entry
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    words = {"encrypted": "encrypted", "empty": "no DICOM image"}.get(harm, "truncated or corrupt zip")
    with pytest.raises(ScanError) as error:
        read_volume(path)
    assert_one_line(error, "ct.zip", words)


def test_nothing_that_names_the_patient_gets_out_and_pydicom_keeps_quiet(tmp_path, capfd):
    slices = dicom_slices(SeriesDescription="SECRET", PatientBirthDate="19010101")
    folder = write_dicom(tmp_path / "ct", slices)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_volume(folder)
    assert "SECRET" not in repr((volume.name, volume.assumptions)) + "".join(capfd.readouterr())


def test_reading_nifti_does_not_need_the_dicom_code():
    """Start-up time: the DICOM side is imported when DICOM comes."""
    loaded = "'situs.io.dicom.read' in sys.modules, 'torch' in sys.modules"
    code = f"import sys, situs.io, situs.io.nifti; print({loaded})"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == ["False", "False"]
