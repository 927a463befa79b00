"""Scans for the tests of reading: a head that is a formula of the world position, and writers of files.

World RAS+ mm. The formula has no symmetry, so that a swapped or flipped axis cannot go unseen.
"""

from __future__ import annotations

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from phantoms import SHARED
from situs.geometry import Geometry

CT = SHARED / "data" / "ct"


def head_hu(world):
    """Whole HU (n,) at world positions (n, 3): air, a skull, a brain whose HU depend on x, y and z alike."""
    x, y, z = np.asarray(world, dtype=float).T
    radius = np.sqrt((x / 75) ** 2 + (y / 92) ** 2 + (z / 85) ** 2)
    brain = 35 + 0.1 * x + 0.06 * y + 0.04 * z
    brain = np.where((x - 30) ** 2 + (y - 40) ** 2 + (z - 10) ** 2 < 15**2, 70, brain)  # right, front
    return np.select([radius < 0.88, radius < 1], [np.round(brain), 1000], -1000)


def stack_hu(geometry):
    """(ni, nj, nk) int16, the head on a stack of slices."""
    ni, nj, nk = geometry.shape
    i, j = np.meshgrid(np.arange(ni), np.arange(nj), indexing="ij")
    flat = np.stack([i.ravel(), j.ravel()], axis=1)
    slices = [head_hu(geometry.to_world(np.column_stack([flat, np.full(len(flat), k)]))) for k in range(nk)]
    return np.stack([s.reshape(ni, nj) for s in slices], axis=2).astype(np.int16)


def head_affine(shape=(48, 56, 20), spacing=(4.5, 4.5, 8.0)):
    """Diagonal RAS+ affine of a grid centred on the head."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def head_scan(shape=(48, 56, 20), spacing=(4.5, 4.5, 8.0)):
    """The head's (ni, nj, nk) int16 HU and its affine."""
    affine = head_affine(shape, spacing)
    return stack_hu(Geometry.from_affine(shape, affine)), affine


def save(path, data, affine, dtype=None):
    nibabel.save(nibabel.Nifti1Image(data, affine, dtype=dtype or data.dtype), path)
    return path


def all_orientations():
    """The 48 ways to permute and flip three axes."""
    from itertools import permutations, product

    return [
        np.column_stack([order, flips])
        for order in permutations(range(3))
        for flips in product((1, -1), repeat=3)
    ]


def dicom_slices(
    heights=tuple(range(-72, 73, 8)),
    *,
    shape=(56, 48),
    spacing=(4.5, 4.0),
    tilt_deg=0.0,
    turn_deg=0.0,
    hu=head_hu,
    intercept=-1024,
    **tags,
):
    """One series of the head as data sets; `heights` are table positions (z, mm), `shape` rows, columns.

    tilt_deg leans the slice planes, turn_deg turns the picture within them. PixelSpacing is (row, column).
    """
    tilt, turn = np.radians([tilt_deg, turn_deg])
    right, back = np.array([1.0, 0, 0]), np.array([0, np.cos(tilt), -np.sin(tilt)])  # LPS
    row = np.cos(turn) * right + np.sin(turn) * back
    column = -np.sin(turn) * right + np.cos(turn) * back
    rows, columns = shape
    uids = {"series": generate_uid(), "study": generate_uid(), "frame": generate_uid()}
    slices = []
    for number, height in enumerate(heights, start=1):
        position = np.array([0.0, 0, height]) - row * spacing[1] * (columns - 1) / 2
        position = position - column * spacing[0] * (rows - 1) / 2
        r, c = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        lps = position + r[..., None] * spacing[0] * column + c[..., None] * spacing[1] * row
        values = hu((lps * [-1, -1, 1]).reshape(-1, 3)).reshape(rows, columns) - intercept
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = uids.values()
        ds.PatientName, ds.PatientID, ds.Modality, ds.PatientPosition = "SECRET^NAME", "SECRET", "CT", "HFS"
        ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "Test", 2, len(heights) - number + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.ImagePositionPatient = [f"{v:.6f}" for v in position]
        ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*row, *column)]
        ds.PixelSpacing, ds.SliceThickness = list(spacing), 5
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = (
            rows,
            columns,
            1,
            "MONOCHROME2",
        )
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(intercept == 0)
        ds.RescaleSlope, ds.RescaleIntercept = 1, intercept
        ds.PixelData = values.astype("<i2" if intercept == 0 else "<u2").tobytes()
        for name, value in tags.items():
            setattr(ds, name, value)
        slices.append(ds)
    return slices


def write_dicom(folder, slices, prefix="a"):
    folder.mkdir(parents=True, exist_ok=True)
    for n, ds in enumerate(slices):
        ds.save_as(folder / f"{prefix}{n:03}.dcm", enforce_file_format=True)
    return folder


def pixel_grid(geometry, k, step=3):
    """(n, 3) voxel indices over slice k."""
    i, j = np.meshgrid(
        np.arange(0, geometry.shape[0], step), np.arange(0, geometry.shape[1], step), indexing="ij"
    )
    return np.column_stack([i.ravel(), j.ravel(), np.full(i.size, k)])


def assert_is_head(volume):
    """Every voxel holds what the formula says at the world position that the geometry claims for it."""
    for k in range(volume.geometry.shape[2]):
        ijk = pixel_grid(volume.geometry, k, 1)
        world = volume.geometry.to_world(ijk)
        expected = head_hu(world)
        # Where a surface of the head runs between a point and its rounding, both sides are right.
        sure = np.all([head_hu(world + d) == expected for d in (1e-3, -1e-3)], axis=0)
        sure |= np.abs(volume.hu[:, :, k].ravel() - expected) <= 1
        assert sure.mean() > 0.98
        found = volume.hu[:, :, k].ravel()
        np.testing.assert_allclose(found[sure], expected[sure], atol=1)


def assert_one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and "SECRET" not in text
    for word in words:
        assert word in text, text
