"""The bytes for the viewer: positions in mm are those of the scan, also where its slices are uneven."""

import gzip

import nibabel as nib
import numpy as np
from phantoms.io_cases import dicom_slices, head_hu, write_dicom

from situs.io import read_volume
from situs.volume import Roi
from situs.web.viewer import mask_file, scan_file


def read(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def test_even_slices_are_sent_as_they_are(tmp_path):
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(range(-40, 41, 16), tilt_deg=18)))
    image = read(scan_file(volume))
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.hu)
    np.testing.assert_allclose(image.affine, volume.geometry.affine, atol=1e-4)
    assert image.get_data_dtype() == np.int16 and not bytes(image.header["descrip"]).strip(b"\0")


def test_uneven_slices_lie_where_they_are_in_mm(tmp_path):
    """Each voxel that is shown at the height of a slice of the scan has that slice's HU."""
    heights = (-40, -36, -24, 0, 8, 20)
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(heights)))
    assert not volume.geometry.is_affine
    image = read(scan_file(volume))
    shown = np.asarray(image.dataobj)
    assert shown.shape[2] == 16  # 60 mm in steps of 4
    for k, height in enumerate(volume.geometry.origins[:, 2]):
        at = round((height - image.affine[2, 3]) / image.affine[2, 2])
        np.testing.assert_array_equal(shown[:, :, at], volume.hu[:, :, k])
    ijk = np.argwhere(np.ones(shown.shape[:2]))[::97]
    world = nib.affines.apply_affine(image.affine, np.column_stack([ijk, np.zeros(len(ijk))]))
    np.testing.assert_array_equal(shown[ijk[:, 0], ijk[:, 1], 0], head_hu(world))


def test_lesions_have_their_numbers(tmp_path):
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices((-40, -36, -24, 0, 8, 20))))
    masks = [np.zeros(volume.geometry.shape, bool) for _ in range(2)]
    masks[0][4:8, 4:8, 2] = masks[1][9:12, 9:12, 3:5] = True
    labels = np.asarray(read(mask_file(volume, [Roi.from_mask(m, volume.geometry) for m in masks])).dataobj)
    assert labels.shape == read(scan_file(volume)).shape and set(np.unique(labels)) == {0, 1, 2}
    assert (labels[4:8, 4:8] != 0).any() and not (labels[4:8, 4:8] == 2).any()


def test_float_hu_are_rounded_and_hundreds_of_lesions_numbered(tmp_path):
    volume = read_volume(write_dicom(tmp_path / "ct", dicom_slices(range(-40, 41, 16))))
    from dataclasses import replace

    image = read(scan_file(replace(volume, hu=volume.hu + np.float32(0.4))))
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.hu)
    lesions = []
    for n in range(300):
        mask = np.zeros(volume.geometry.shape, bool)
        mask[n % 20, n // 20, 0] = True
        lesions.append(Roi.from_mask(mask, volume.geometry))
    assert np.asarray(read(mask_file(volume, lesions)).dataobj).max() == 300
