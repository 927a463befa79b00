"""DICOM of the kinds that people report: each is read rightly, or said to be what it is."""

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import assert_is_head, assert_one_line, dicom_slices, head_hu, write_dicom
from pydicom.uid import generate_uid

from situs.errors import ScanError
from situs.io import read_volume

HEIGHTS = list(range(-72, 73, 8))


def noisy(world):
    """The head as a sharp kernel has it: other values, at which the plain head's test fails."""
    return head_hu(world) + 200 * (world[:, 0] // 4 % 2).astype(int)


def one_series(*parts):
    """Slices of several parts as one series."""
    uid = generate_uid()
    slices = [ds for part in parts for ds in part]
    for n, ds in enumerate(slices, start=1):
        ds.SeriesInstanceUID, ds.InstanceNumber = uid, n
    return slices


def said(volume):
    return " ".join(volume.assumptions)


# Series that are no single stack


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("plain", "other", "reason"),
    [
        ({"ConvolutionKernel": "H31s"}, {"ConvolutionKernel": "H60s", "hu": noisy}, "sharp kernel"),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2, "hu": noisy}, "another acquisition"),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2, "hu": noisy}, "another moment"),
        ({"ContrastBolusAgent": "No"}, {"ContrastBolusAgent": "Iohexol", "hu": noisy}, "contrast medium"),
        ({}, {"ImageType": ["DERIVED", "SECONDARY"], "hu": noisy}, "derived"),
        ({"SeriesNumber": 2}, {"SeriesNumber": 3, "hu": noisy}, "another series number"),
        ({}, {"PixelSpacing": [4.0, 4.0], "heights": HEIGHTS[3:8]}, "covers less"),
        ({}, {"shape": (48, 56), "heights": HEIGHTS[3:6]}, "covers less"),
    ],
    ids=lambda case: case if isinstance(case, str) else None,
)
def test_two_stacks_in_one_series_are_split_and_one_is_chosen(tmp_path, plain, other, reason, order):
    slices = one_series(dicom_slices(**plain), dicom_slices(**other))
    volume = read_volume(write_dicom(tmp_path / "ct", slices[::order]))
    assert volume.hu.shape[2] == len(HEIGHTS)
    assert_is_head(volume)
    assert "Series 2 was read (19 slices); not series" in said(volume) and reason in said(volume)


def test_thin_slices_between_thick_ones_are_another_stack(tmp_path):
    thin = dicom_slices(np.arange(-72, 73, 1.5), SliceThickness=1.5, hu=noisy, ConvolutionKernel="H60s")
    volume = read_volume(write_dicom(tmp_path / "ct", one_series(dicom_slices(), thin)))
    assert volume.hu.shape[2] == 19
    assert_is_head(volume)


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "ConvolutionKernel", "SeriesNumber", "SliceThickness"])
def test_a_scan_in_two_parts_of_the_head_stays_one(tmp_path, tag):
    """The base in one acquisition, with one kernel, ..., what lies above in another."""
    low, high = (1, 2) if tag != "ConvolutionKernel" else ("H31s", "H41s")
    slices = one_series(dicom_slices(HEIGHTS[:8], **{tag: low}), dicom_slices(HEIGHTS[8:], **{tag: high}))
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu.shape[2] == 19 and volume.assumptions == ()
    assert_is_head(volume)


def test_a_scan_taken_slice_by_slice_stays_one_and_a_repeated_one_does_not(tmp_path):
    heights = [-72, -68, -67, -60, -56, -55, -48, -40, -30, -20, 0, 10, 30, 60]
    first, again = dicom_slices(heights), dicom_slices(heights, hu=noisy)
    for n, ds in enumerate([*first, *again]):
        ds.AcquisitionNumber = n + 1
    write_dicom(tmp_path / "one", one_series(first))
    write_dicom(tmp_path / "two", one_series(first, again))
    for folder in ("one", "two"):
        volume = read_volume(tmp_path / folder)
        assert volume.hu.shape[2] == len(heights)
        assert_is_head(volume)
        assert ("another acquisition" in said(volume)) == (folder == "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    "tag", ["", "AcquisitionNumber", "TemporalPositionIdentifier", "FrameOfReferenceUID"]
)
@pytest.mark.parametrize("body_part", ["HEAD", ""])
def test_a_perfusion_study_never_beats_the_plain_scan(tmp_path, tag, body_part):
    moments = []
    for n in range(3):
        value = {"FrameOfReferenceUID": generate_uid()}.get(tag, n + 1)
        moments.append(
            dicom_slices(
                HEIGHTS, hu=noisy, SeriesNumber=1, BodyPartExamined="HEAD", **({tag: value} if tag else {})
            )
        )
    write_dicom(tmp_path / "st" / "ctp", one_series(*moments))
    write_dicom(tmp_path / "st" / "plain", dicom_slices(HEIGHTS[:-2], BodyPartExamined=body_part))
    volume = read_volume(tmp_path / "st")
    assert_is_head(volume)
    assert "Series 2 was read (17 slices); not 3 x series 1 (axial CT, 19 images)" in said(volume)
    assert "one moment of several" in said(volume)
    alone = read_volume(tmp_path / "st" / "ctp")
    assert alone.hu.shape[2] == 19 and "not 2 x series 1" in said(alone)


def test_a_series_described_as_perfusion_is_one_though_nothing_else_says_so(tmp_path):
    write_dicom(tmp_path / "st", dicom_slices(SeriesNumber=1, SeriesDescription="VPCT SECRET", hu=noisy), "a")
    write_dicom(tmp_path / "st", dicom_slices(HEIGHTS[:-1]), "b")
    volume = read_volume(tmp_path / "st")
    assert_is_head(volume)
    assert "SECRET" not in said(volume)


def test_images_at_one_place_that_nothing_tells_apart_are_refused(tmp_path):
    slices = one_series(dicom_slices(), dicom_slices(hu=noisy))
    for ds in slices:
        ds.InstanceNumber = 1
    uid = slices[0].FrameOfReferenceUID, slices[0].StudyInstanceUID
    for ds in slices:
        ds.FrameOfReferenceUID, ds.StudyInstanceUID = uid
    with pytest.raises(ScanError) as error:
        read_volume(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, "different slices at the same position")


def test_a_tilt_that_changes_makes_two_stacks(tmp_path):
    slices = one_series(dicom_slices(HEIGHTS[:6], tilt_deg=12), dicom_slices(HEIGHTS[6:]))
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu.shape[2] == 13
    assert_is_head(volume)
    assert "not series 2 (axial CT, 6 images)" in said(volume)


@pytest.mark.parametrize(
    "odd",
    [
        {"Rows": 48, "Columns": 56},
        {"PixelSpacing": [4.4, 4.4]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0.98, 0.2]},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_one_image_that_is_none_of_the_stack_is_left_out_and_named(tmp_path, odd):
    slices = dicom_slices()
    for name, value in odd.items():
        setattr(slices[3], name, value)
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert_is_head(volume)
    assert "(18 slices); not series 2 (axial CT, 1 image): another" in said(volume)
    assert "1 slice is missing" in said(volume)


# Series that are not what their UIDs say


def test_files_with_series_uids_of_their_own_are_joined(tmp_path):
    slices = dicom_slices()
    for ds in slices:
        ds.SeriesInstanceUID = generate_uid()
    volume = read_volume(write_dicom(tmp_path / "ct", slices), series="2")
    assert_is_head(volume)
    assert "19 slices have 19 SeriesInstanceUIDs; they were joined" in said(volume)


def test_single_images_of_two_series_are_not_mixed(tmp_path):
    slices = dicom_slices() + dicom_slices(SeriesNumber=3, hu=noisy, ConvolutionKernel="BONE")
    for ds in slices:
        ds.SeriesInstanceUID = generate_uid()
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert_is_head(volume)
    assert "not series 3 (axial CT, 19 images): sharp kernel" in said(volume)


def test_one_series_uid_with_a_number_for_each_file_is_one_series(tmp_path):
    slices = dicom_slices()
    for n, ds in enumerate(slices):
        ds.SeriesNumber = 100 + n
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu.shape[2] == 19
    assert_is_head(volume)


def test_of_two_series_of_one_number_the_uids_are_listed_and_each_can_be_asked_for(tmp_path):
    first, second = dicom_slices(), dicom_slices(HEIGHTS[:-1])
    write_dicom(tmp_path / "st" / "2020", first)
    write_dicom(tmp_path / "st" / "2021", second)
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "st", series="2")
    uids = [str(part[0].SeriesInstanceUID) for part in (first, second)]
    assert_one_line(error, *uids, "19 images", "18 images")
    assert [read_volume(tmp_path / "st", series=uid).hu.shape[2] for uid in uids] == [19, 18]


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_of_several_patients_none_is_chosen_but_one_can_be_asked_for(tmp_path):
    one, other = (dicom_slices(range(-40, 41, 10), PatientID=name) for name in ("SECRET1", "SECRET2"))
    write_dicom(tmp_path / "ct", one)
    write_dicom(tmp_path / "ct", other, prefix="b")
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "ct")
    assert_one_line(error, "ct", "CT of several patients", one[0].SeriesInstanceUID)
    volume = read_volume(tmp_path / "ct", series=other[0].SeriesInstanceUID)
    assert volume.source.study == other[0].StudyInstanceUID
    for ds in one[3:5]:
        ds.PatientID = "SECRET3"
    with pytest.raises(ScanError) as error:
        read_volume(write_dicom(tmp_path / "mixed", one))
    assert_one_line(error, "mixed", "series 2 holds images of several patients")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("tags", [{"Modality": "SECRET"}, {"SeriesInstanceUID": "SECRET"}], ids=str)
def test_what_is_no_modality_or_uid_is_not_shown(tmp_path, tags):
    write_dicom(tmp_path / "st", dicom_slices(**tags), "a")
    write_dicom(tmp_path / "st", dicom_slices(Modality="MR"), "b")
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "st", series="9")
    assert_one_line(error, "no CT series 9")


# Headers


@pytest.mark.slow
@pytest.mark.parametrize(
    "agent", ["NONE", "No", "0", "N", "no contrast", "Non-contrast", "WITHOUT", "w/o", "ohne KM", "-", "N/A"]
)
def test_a_contrast_medium_that_is_none(tmp_path, agent):
    write_dicom(tmp_path / "ct", dicom_slices(ContrastBolusAgent=agent), "a")
    write_dicom(
        tmp_path / "ct", dicom_slices(ContrastBolusAgent="OMNIPAQUE 350", SeriesNumber=1, hu=noisy), "b"
    )
    volume = read_volume(tmp_path / "ct")
    assert_is_head(volume)
    assert "contrast medium" in said(volume)


@pytest.mark.slow
@pytest.mark.parametrize(
    "agent", ["Nonionic iodinated", "Non-ionic", "IV", "YES", "100 ml Ultravist", "碘海醇"]
)
def test_a_contrast_medium_is_one_whatever_it_is_called(tmp_path, agent):
    charset = {"SpecificCharacterSet": "ISO_IR 192"}
    write_dicom(tmp_path / "ct", dicom_slices(SeriesNumber=3), "a")
    other = dicom_slices(ContrastBolusAgent=agent, hu=noisy, **charset)
    write_dicom(tmp_path / "ct", other, "b")
    volume = read_volume(tmp_path / "ct")
    assert_is_head(volume)
    assert "contrast medium" in said(volume)


@pytest.mark.parametrize("gone", [("Modality",), ("SOPClassUID",), ("SOPClassUID", "SeriesNumber")])
def test_a_ct_is_known_by_its_class_or_by_its_modality(tmp_path, gone):
    slices = dicom_slices()
    folder = tmp_path / "ct"
    folder.mkdir()
    for n, ds in enumerate(slices):
        for name in gone:
            delattr(ds, name)
        ds.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    assert_is_head(read_volume(folder))


@pytest.mark.parametrize("gone", ["ImagePositionPatient", "PixelSpacing", "ImageOrientationPatient"])
def test_what_is_missing_to_place_the_images_is_named(tmp_path, gone):
    slices = dicom_slices()
    for ds in slices:
        delattr(ds, gone)
    with pytest.raises(ScanError) as error:
        read_volume(write_dicom(tmp_path / "ct", slices))
    assert_one_line(error, f"{gone} is missing", "series 2")


def test_the_directory_of_a_cd_stands_for_its_folder(tmp_path):
    write_dicom(tmp_path / "cd" / "DICOM", dicom_slices())
    directory = b"\0" * 128 + b"DICM" + b"\x02\0\x02\0UI\x16\0" + b"1.2.840.10008.1.3.10\0\0"
    for name in ("DICOMDIR", "dicomdir", "index.dcm"):
        (tmp_path / "cd" / name).write_bytes(directory)
        assert_is_head(read_volume(tmp_path / "cd" / name))
        (tmp_path / "cd" / name).unlink()


def as_one_file(slices, **tags):
    one = slices[0]
    one.PixelData = b"".join(ds.PixelData for ds in slices)
    one.NumberOfFrames = len(slices)
    for name, value in tags.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    "tags", [{"SpacingBetweenSlices": 8, "SliceThickness": 5}, {"SliceThickness": 8}], ids=str
)
def test_frames_without_positions_are_stacked_by_their_distance(tmp_path, tags):
    one = as_one_file(dicom_slices(), **tags)
    one.save_as(tmp_path / "cbct.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "cbct.dcm")
    assert_is_head(volume)
    assert f"8 mm apart, as its {next(iter(tags))} says" in said(volume)
    assert len(volume.doubts) == 1


def test_frames_without_positions_or_a_distance_are_refused(tmp_path):
    one = as_one_file(dicom_slices())
    del one.SliceThickness
    one.save_as(tmp_path / "cbct.dcm", enforce_file_format=True)
    with pytest.raises(ScanError) as error:
        read_volume(tmp_path / "cbct.dcm")
    assert_one_line(error, "ImagePositionPatient is missing")


# Geometry


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_slices_that_are_not_axial_are_cut_axially(tmp_path, plane):
    slices = []
    for n, ds in enumerate(dicom_slices(range(-80, 81, 5))):
        at = -80 + 5 * n
        r, c = np.meshgrid(4.5 * np.arange(56) - 123.75, 4.0 * np.arange(48) - 94, indexing="ij")
        x, y = (c, np.full_like(r, at)) if plane == "coronal" else (np.full_like(r, at), c)
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1] if plane == "coronal" else [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [-94, at, 123.75] if plane == "coronal" else [at, -94, 123.75]
        lps = np.stack([x, y, -r], axis=-1).reshape(-1, 3)
        ds.PixelData = (head_hu(lps * [-1, -1, 1]).reshape(56, 48) + 1024).astype("<u2").tobytes()
        slices.append(ds)
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu.shape[2] == 56 and volume.geometry.normal[2] > 0.99
    assert_is_head(volume)
    assert f"slices that are not axial ({plane}), 5.0 mm apart" in said(volume)
    slices[5].ImagePositionPatient = list(np.add(slices[5].ImagePositionPatient, [1, 1, 0]))
    with pytest.raises(ScanError) as error:
        read_volume(write_dicom(tmp_path / "uneven", slices))
    assert_one_line(error, "uneven distances", "axial series")


@pytest.mark.parametrize("thickness", [(5, 10), (5, 5)])
def test_a_protocol_with_two_distances_lacks_no_slice(tmp_path, thickness):
    low = dicom_slices([-75, -70, -65, -60, -55, -50], SliceThickness=thickness[0])
    high = dicom_slices([-40, -30, -20, -10], SliceThickness=thickness[1])
    volume = read_volume(write_dicom(tmp_path / "ct", one_series(low, high)))
    assert "missing" not in said(volume) and "uneven (5, 10 mm)" in said(volume)


# Values


def test_the_polarity_of_the_display_plays_no_part(tmp_path):
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(PhotometricInterpretation="MONOCHROME1")))
    assert_is_head(volume)


@pytest.mark.parametrize(("first", "last"), [(60, 62), (62, 60)])
def test_all_of_a_padding_range_is_padding(tmp_path, first, last):
    def padded(world):
        rim = np.linalg.norm(world[:, :2], axis=1) > 100
        return np.where(rim, 60 + world[:, 0].round().astype(int) % 3, head_hu(world))

    slices = dicom_slices(hu=padded, intercept=0)
    for ds in slices:
        ds.add_new("PixelPaddingValue", "SS", first)
        ds.add_new("PixelPaddingRangeLimit", "SS", last)
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    outside = np.linalg.norm(volume.geometry.to_world([[0, 0, 9]])[0, :2]) > 100
    assert outside and volume.hu[0, :, 9].max() <= -1000


def test_padding_written_with_the_other_sign(tmp_path):
    def padded(world):
        return np.where(np.linalg.norm(world[:, :2], axis=1) > 105, 300, head_hu(world)) - 2000

    slices = dicom_slices(hu=padded, intercept=0, RescaleIntercept=2000)
    for ds in slices:
        ds.add_new("PixelPaddingValue", "US", 65536 - 1700)
    assert read_volume(write_dicom(tmp_path / "ct", slices)).hu[0, 0].max() == -1024


@pytest.mark.parametrize("bits", [12, 16])
def test_signed_values_that_are_read_as_unsigned(tmp_path, bits):
    slices = dicom_slices(intercept=0)
    for ds in slices:
        values = np.frombuffer(ds.PixelData, "<i2").astype(int) % 2**bits
        ds.PixelData = values.astype("<u2").tobytes()
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 0, bits, bits - 1
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert_is_head(volume)
    assert "wrapped round" in said(volume)


def test_padding_below_what_twelve_bits_hold(tmp_path):
    """-2000 outside the reconstruction circle, stored as HU + 1024 in 12 bits: 3120."""

    def padded(world):
        return np.where(np.linalg.norm(world[:, :2], axis=1) > 105, -2000, head_hu(world))

    slices = dicom_slices(hu=padded)
    for ds in slices:
        stored = np.frombuffer(ds.PixelData, "<u2").astype(np.int16).astype(int) % 4096
        ds.PixelData, ds.BitsStored, ds.HighBit = stored.astype("<u2").tobytes(), 12, 11
    volume = read_volume(write_dicom(tmp_path / "ct", slices))
    assert volume.hu[0, 0].max() == -1024 and volume.hu.max() == 1000


# The mask helps to choose


def mask_at(path, *boxes, oriented=True):
    """A mask of 4 mm voxels from -100 mm on, with boxes ((x, y, z) from, to) in mm."""
    mask = np.zeros((50, 50, 50), np.uint8)
    for low, high in boxes:
        mask[tuple(slice((a + 100) // 4, (b + 100) // 4) for a, b in zip(low, high, strict=True))] = 1
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -98
    image = nibabel.Nifti1Image(mask, affine if oriented else None)
    if not oriented:
        image.header.set_zooms((4, 4, 4))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("low", "high", "n_slices"), [(-70, -40, 6), (-20, 60, 13), (-70, 60, 13)])
def test_of_two_tilts_in_one_series_the_one_that_the_mask_meets_is_read(tmp_path, low, high, n_slices):
    slices = one_series(dicom_slices(HEIGHTS[:6], tilt_deg=8), dicom_slices(HEIGHTS[6:]))
    folder = write_dicom(tmp_path / "ct", slices)
    mask = mask_at(tmp_path / "mask.nii", ((-20, -20, low), (20, 20, high)))
    volume = read_volume(folder, roi=mask)
    assert volume.hu.shape[2] == n_slices
    assert ("the mask does not meet it" in said(volume)) == (high < 0 or low > -40)


def test_the_mask_chooses_between_series_but_not_a_sharp_kernel_that_it_meets_as_well(tmp_path):
    write_dicom(tmp_path / "st", dicom_slices(HEIGHTS[:7], ConvolutionKernel="H30s"), "a")
    write_dicom(tmp_path / "st", dicom_slices(HEIGHTS[8:], SeriesNumber=3, ConvolutionKernel="H30s"), "b")
    bone = dicom_slices(SeriesNumber=4, ConvolutionKernel="H70s", hu=noisy)
    write_dicom(tmp_path / "st", bone, "c")
    for low, high, number in ((-70, -40, 2), (20, 60, 3)):
        mask = mask_at(tmp_path / "mask.nii", ((-20, -20, low), (20, 20, high)))
        volume = read_volume(tmp_path / "st", roi=mask)
        assert f"Series {number} was read" in said(volume) or "Series 4" in said(volume)
        assert f"series {5 - number} (axial CT" in said(volume)


def test_a_mask_that_says_nothing_about_its_place_does_not_choose(tmp_path):
    slices = one_series(dicom_slices(HEIGHTS[:6], tilt_deg=8), dicom_slices(HEIGHTS[6:]))
    folder = write_dicom(tmp_path / "ct", slices)
    mask = mask_at(tmp_path / "mask.nii", ((-20, -20, -70), (20, 20, -40)), oriented=False)
    assert read_volume(folder, roi=mask).hu.shape[2] == 13


def test_the_mask_is_not_read_where_there_is_no_choice(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices())
    assert read_volume(folder, roi=tmp_path / "none.nii").hu.shape[2] == 19


# What is no scan


def objects(folder, *modalities, pixels=False, sop_class="1.2.840.10008.5.1.4.1.1.88.11"):
    """A file for each modality, without pixels unless they are asked for."""
    slices = dicom_slices(range(len(modalities)), hu=lambda world: np.zeros(len(world), int))
    for ds, modality in zip(slices, modalities, strict=True):
        ds.Modality, ds.SOPClassUID = modality, sop_class
        ds.file_meta.MediaStorageSOPClassUID = sop_class
        for tag in () if pixels else ("Rows", "Columns", "PixelData"):
            delattr(ds, tag)
    return write_dicom(folder, slices)


@pytest.mark.parametrize(
    ("modality", "kind", "advice"),
    [
        ("SEG", "a DICOM segmentation (SEG)", "with --roi"),
        ("RTSTRUCT", "a DICOM structure set (RTSTRUCT)", "with --roi"),
        ("SR", "a DICOM report (SR)", "give the folder of the CT series"),
        ("PR", "a DICOM presentation state (PR)", "give the folder of the CT series"),
        ("KO", "a DICOM list of key images (KO)", "give the folder of the CT series"),
        ("DOC", "a DICOM document (DOC)", "give the folder of the CT series"),
        ("XYZ", "a DICOM file", "give the folder of the CT series"),
    ],
)
def test_an_object_that_is_no_scan_is_called_what_it_is(tmp_path, modality, kind, advice):
    folder = objects(tmp_path / "ct", modality, pixels=modality == "SEG")
    (path,) = folder.iterdir()
    for given, words in ((path, f"is {kind}, expected a CT"), (folder, f"holds no CT but {kind}, expected")):
        with pytest.raises(ScanError) as error:
            read_volume(given)
        assert_one_line(error, given.name, words, advice)


def test_a_pdf_is_a_document_whatever_its_modality(tmp_path):
    folder = objects(tmp_path / "ct", "OT", sop_class="1.2.840.10008.5.1.4.1.1.104.1")
    with pytest.raises(ScanError, match="holds no CT but a DICOM document"):
        read_volume(folder)


def test_all_kinds_of_objects_in_a_folder_are_named(tmp_path):
    with pytest.raises(ScanError) as error:
        read_volume(objects(tmp_path / "ct", "SR", "SR", "KO"))
    assert_one_line(error, "holds no CT but a DICOM list of key images (KO) and a DICOM report (SR)")


def test_objects_beside_a_scan_play_no_part(tmp_path):
    folder = write_dicom(tmp_path / "ct", dicom_slices(HEIGHTS))
    objects(folder / "objects", "SR", "KO", "RTSTRUCT")
    assert_is_head(read_volume(folder))
