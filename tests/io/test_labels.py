"""A mask's numbers as labels."""

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import assert_one_line, head_affine, head_scan, save

from situs.errors import RoiError
from situs.io import arrays, read_rois, read_volume
from situs.io.labels import WholeNumbers, to_layers
from situs.io.nifti import read_nifti_grid

SHAPE = (40, 50, 12)


def three_boxes(dtype=np.uint8):
    mask = np.zeros(SHAPE, dtype)
    mask[5:12, 5:12, 2:4], mask[20:28, 5:12, 3:5], mask[5:9, 30:42, 6:9] = 1, 2, 3
    return mask


def only(values, step=0.0):
    """The labels of a mask with three axes, and its notes."""
    whole = WholeNumbers("m.nii")
    ((value, labels),), notes = to_layers(whole(values, step), "m.nii")
    assert value is None
    return labels, whole.notes + notes


def refused(values, words, step=0.0):
    with pytest.raises(RoiError) as error:
        to_layers(WholeNumbers("m.nii")(values, step), "m.nii")
    assert_one_line(error, "m.nii", words)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32])
def test_whole_numbers_are_taken_as_they_are(dtype):
    labels, notes = only(three_boxes(dtype))
    assert labels.dtype == np.uint8 and np.array_equal(labels, three_boxes()) and notes == ()


@pytest.mark.parametrize("off", [1e-6, -0.01, 0.049])
def test_labels_that_are_off_by_rounding_are_rounded_and_it_is_said(off):
    labels, notes = only(three_boxes(np.float32) * np.float32(1 + off / 3))
    assert np.array_equal(labels, three_boxes())
    assert any("rounded to whole numbers" in note for note in notes)


@pytest.mark.parametrize("highest", [6, 20, 60])
def test_labels_in_a_byte_with_a_slope_are_rounded(tmp_path, highest):
    """As nibabel saves floats with the header of a mask: 255 steps for all labels."""
    mask = np.zeros(SHAPE, np.float64)
    for value in range(1, highest + 1):
        mask[value % 30 : value % 30 + 5, value % 40 : value % 40 + 5, value % 11] = value
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, head_affine(SHAPE), header), tmp_path / "m.nii.gz")
    stored = np.asanyarray(nibabel.load(tmp_path / "m.nii.gz").dataobj)
    assert (stored % 1 != 0).any()
    scan = read_volume(save(tmp_path / "scan.nii", *head_scan(SHAPE)))
    rois = read_rois(tmp_path / "m.nii.gz", scan)
    assert [roi.value for roi in rois] == sorted(set(np.unique(mask)) - {0})
    assert sum(int(roi.mask.sum()) for roi in rois) == np.count_nonzero(mask)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1 / 3, 1.07])
def test_fractions_are_no_labels(factor):
    refused(three_boxes(np.float32) * np.float32(factor), "not whole (such as")


def test_a_probability_map_in_bytes_is_no_mask():
    values = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 256).astype(np.float32) / 255
    refused(values, "for probabilities add --threshold 0.5", step=1 / 255)


def test_nan_is_no_lesion_and_it_is_said():
    values = three_boxes(np.float32)
    values[:3] = np.nan
    labels, notes = only(values)
    assert np.array_equal(labels, three_boxes())
    assert any("NaN" in note for note in notes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("channels", [False, True])
def test_a_mask_is_read_as_small_integers_whatever_its_kind(tmp_path, monkeypatch, dtype, channels):
    """Piece by piece: labels of two bytes, rounding, NaN and a fraction each stand in another piece."""
    monkeypatch.setattr(arrays, "_PIECE", 1000)
    mask = (one_hot() if channels else three_boxes(np.uint16)).astype(dtype)
    mask[mask == 3] = 300
    expected = np.array(mask, np.uint16)
    if mask.dtype.kind == "f":
        mask[5:12, 5:12, 2:4] *= 1.01
        mask[0, 0, 0] = np.nan
    whole = WholeNumbers("m.nii")
    path = save(tmp_path / "m.nii", mask, head_scan(SHAPE)[1])
    values = read_nifti_grid(path, RoiError, whole).values
    assert values.dtype == (np.uint8 if channels else np.uint16) and np.array_equal(values, expected)
    assert len(whole.notes) == (2 if mask.dtype.kind == "f" else 0)
    if mask.dtype.kind == "f":
        mask[-1, -1, -1] = 0.5
        with pytest.raises(RoiError) as error:
            read_nifti_grid(save(path, mask, head_scan(SHAPE)[1]), RoiError, WholeNumbers("m.nii"))
        assert_one_line(error, "not whole (such as 0.5)")


@pytest.mark.parametrize("values", [(-1,), (-1, -2, -1000), tuple(range(-8, 0))])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_few_negative_labels_are_no_lesion_and_it_is_said(values, dtype):
    mask = three_boxes(dtype)
    for n, value in enumerate(values):
        mask[30 + n, :, :] = value
    labels, notes = only(mask)
    assert np.array_equal(labels, three_boxes())
    assert any("Negative labels" in note for note in notes)


@pytest.mark.parametrize("offset", [0, -1024, 200])
def test_a_scan_is_no_mask(offset):
    hu = head_scan((48, 56, 20), (4.5, 4.5, 8.0))[0].astype(np.int32) + offset
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).round().astype(np.int32)
    refused(hu, "is this the scan?")


@pytest.mark.parametrize("highest", [2, 255, 4000, 70_000])
def test_noise_is_no_mask(highest):
    refused(np.random.default_rng(0).integers(0, highest, (96, 96, 30)), "is this the scan?")


def test_thousands_of_specks_are_a_mask_but_not_any_number():
    mask = np.zeros((200, 200, 40), np.uint16)
    specks = mask[::4, ::4, ::4]  # 25,000
    specks.flat[:5390] = 1
    assert np.array_equal(only(mask)[0], mask)
    specks.flat[:5390] = np.arange(1, 5391)  # each a label of its own
    assert np.array_equal(only(mask)[0], mask)
    specks.flat[:10_001] = 1
    refused(mask, "more than 10000 separate lesions")
    specks.flat[:10_001] = np.arange(1, 10_002)
    refused(mask, "10001 labels, expected at most 10000")


def test_a_large_label_map_is_a_mask():
    """A label in every voxel of half the volume, in large pieces."""
    blocks = np.arange(1, 1 + 4 * 5 * 3).reshape(4, 5, 3)
    mask = np.kron(blocks, np.ones((32, 32, 12), int)).astype(np.int32)
    mask[:, 90:] = 0
    assert np.array_equal(only(mask)[0], mask)


def test_labels_beyond_what_floats_hold_are_refused():
    refused(np.where(three_boxes(), np.float32(2**25), 0).astype(np.float32), "renumber")
    refused(np.where(three_boxes(), 2**31, 0), "renumber")
    assert only(np.where(three_boxes(), 2**31 - 1, 0))[0].max() == 2**31 - 1


# Channels


def one_hot(background=False):
    mask = three_boxes()
    first = [mask == 0] if background else []
    return np.stack([*first, *(mask == value for value in (1, 2, 3))], axis=3).astype(np.uint8)


@pytest.mark.parametrize("background", [False, True])
def test_a_channel_is_a_region(background):
    layers, notes = to_layers(one_hot(background), "m.nii")
    assert [value for value, _ in layers] == [1, 2, 3]
    for value, labels in layers:
        assert np.array_equal(labels > 0, three_boxes() == value)
    assert any(f"{3 + background} channels" in note for note in notes)
    assert any("no region" in note for note in notes) == background


def test_channels_may_overlap_and_be_empty(tmp_path):
    mask = one_hot()
    mask[..., 1] = mask[..., 0]
    mask[..., 2] = 0
    scan = read_volume(save(tmp_path / "scan.nii", *head_scan(SHAPE)))
    for stored in (mask, mask[:, :, :, None]):  # the fifth axis, as the standard has it
        rois = read_rois(save(tmp_path / "m.nii.gz", stored * 7, head_scan(SHAPE)[1]), scan)
        assert [roi.value for roi in rois] == [1, 2]
        assert np.array_equal(rois[0].mask, rois[1].mask) and rois[0].start == rois[1].start


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_channels_in_any_axis_order_and_through_patient_space(tmp_path, order):
    data, affine = head_scan(SHAPE)
    scan = read_volume(save(tmp_path / "scan.nii", data, affine))
    turned = affine[:, [*order, 3]]
    mask = one_hot().transpose(*order, 3)
    rois = read_rois(save(tmp_path / "m.nii", mask, turned), scan)
    part = read_rois(save(tmp_path / "part.nii", mask[:-1, :-1], turned), scan)
    for roi, other in zip(rois, part, strict=True):
        assert int(roi.mask.sum()) == int((three_boxes() == roi.value).sum())
        assert np.array_equal(roi.mask, other.mask) and roi.start == other.start


def test_channels_of_several_labels_are_refused():
    refused(one_hot() * np.arange(1, 6).repeat(10)[:50, None, None].astype(np.uint8), "several labels")
    refused(np.zeros((*SHAPE, 3), np.uint8), "the mask is empty")
