"""A mask's voxels on the scan's, whatever the two headers say: the right place, or a doubt."""

import subprocess
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from phantoms.io_cases import dicom_slices, write_dicom

from situs.geometry import Geometry, axial_order
from situs.io import read_rois, read_volume
from situs.io.arrays import FileGrid
from situs.io.binding import BindingError, bind
from situs.io.rois import bound_regions
from situs.volume import Roi, StoredGrid, Volume, largest_part

ORIENTATIONS = [(order, flips) for order in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def nifti(array, affine, others=(), oriented=True):
    """What the reader makes of a file's array (axes as in the file) and its affines."""
    order = axial_order(affine)
    columns = [*order, 3]
    values = array.transpose(order)
    geometry = Geometry.from_affine(values.shape, affine[:, columns])
    others = tuple(other[:, columns] for other in others)
    return FileGrid(values, affine[:, columns], geometry, order, oriented, others, ())


def scan_of(grid):
    """A scan read from a file of this grid."""
    others = tuple(Geometry.from_affine(grid.geometry.shape, affine) for affine in grid.others)
    stored = StoredGrid(grid.order, grid.oriented, others)
    return Volume(np.zeros(grid.values.shape, np.int16), grid.geometry, stored=stored)


def series_of(geometry):
    """A scan read from a DICOM series."""
    return Volume(np.zeros(geometry.shape, np.int16), geometry)


def reoriented(array, affine, order, flips):
    """The same voxels at the same places in another order: an array and its affine."""
    affine = affine[:, [*order, 3]].copy()
    array = array.transpose(order)
    for axis in np.flatnonzero(np.array(flips) < 0):
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return array, affine


def rotation(rng, most_deg):
    """(3, 3) a turn by up to so much about each axis."""
    turn = np.eye(3)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        angle = np.radians(rng.uniform(-most_deg, most_deg))
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = [np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)]
        turn = turn @ step
    return turn


class Case:
    """A random stack of slices with one lesion, and everything that a header may make of it.

    `straight` is the affine that perpendicular axes leave of the stack, as ITK writes it.
    """

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        shape = tuple(int(n) for n in (rng.integers(12, 20), rng.integers(12, 20), rng.integers(6, 12)))
        turn = rotation(rng, 20 if rng.random() < 0.3 else 0)
        signs = rng.choice([-1, 1], 2)
        spacing = rng.uniform(1.5, 4, 2)
        step_i, step_j = turn[:, 0] * spacing[0] * signs[0], turn[:, 1] * spacing[1] * signs[1]
        self.tilted, self.uneven = rng.random(2) < [0.5, 0.3]
        tilt = np.radians(rng.uniform(8, 25) * rng.choice([-1, 1]) if self.tilted else 0)
        way = turn @ np.array([0, np.sin(tilt), np.cos(tilt)])
        gaps = np.full(shape[2] - 1, rng.uniform(3, 8))
        if self.uneven:
            gaps[rng.integers(shape[2] - 1) :] *= 2
        heights = np.concatenate([[0], np.cumsum(gaps)])
        middle = (step_i * (shape[0] - 1) + step_j * (shape[1] - 1) + way * heights[-1]) / 2
        # Scanners put the middle of the field at the isocentre but for half a pixel, or it is moved.
        if rng.random() < 0.3:
            centre = 0.5 * (step_i + step_j)
        else:
            centre = rng.uniform(8, 40, 3) * rng.choice([-1, 1], 3)
        origins = centre - middle + heights[:, None] * way
        self.geometry = Geometry(shape, step_i, step_j, origins)
        low = [int(rng.integers(0, n - 3)) for n in shape]
        self.array = np.zeros(shape, np.uint8)
        self.array[tuple(slice(a, a + 2 + int(rng.integers(0, 2))) for a in low)] = 1
        length = (
            np.linalg.norm(origins[-1] - origins[0]) if rng.random() < 0.5 else heights[-1] * np.cos(tilt)
        )
        self.straight = np.eye(4)
        normal = self.geometry.normal
        self.straight[:3] = np.column_stack([step_i, step_j, normal * length / (shape[2] - 1), origins[0]])
        self.affine = None if self.uneven else self.geometry.affine

    def scan(self, others=(), oriented=True):
        """From a file in some orientation, or a series where no affine describes the slices."""
        if self.affine is None or (self.rng.random() < 0.3 and not others and oriented):
            return series_of(self.geometry), None
        order, flips = ORIENTATIONS[self.rng.integers(48)]
        array, affine = reoriented(self.array, self.affine, order, flips)
        others = tuple(reoriented(self.array, other, order, flips)[1] for other in others)
        self.file = array, affine, others
        return scan_of(nifti(array, affine, others, oriented)), (order, flips)

    def centre(self, volume, roi):
        """World position of a region's middle, each voxel by its thickness."""
        ijk = np.argwhere(roi.mask) + roi.start
        weights = volume.geometry.slice_thickness_mm[ijk[:, 2]]
        return np.average(volume.geometry.to_world(ijk), axis=0, weights=weights)

    def truth(self):
        return self.centre(series_of(self.geometry), Roi.from_mask(self.array > 0, self.geometry))

    def resampled(self, geometry, spacing):
        """The lesion on a grid of its own that covers the box of a geometry: array and affine."""
        corners = np.concatenate(
            [
                geometry.to_world([[i, j, k] for i in (0, n - 1) for j in (0, m - 1)])
                for n, m, _ in [geometry.shape]
                for k in (0, geometry.shape[2] - 1)
            ]
        )
        low, high = corners.min(axis=0) - spacing / 2, corners.max(axis=0) + spacing / 2
        shape = np.ceil((high - low) / spacing).astype(int) + 1
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = low
        world = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3) * spacing + low
        nearest = np.abs((world @ geometry.normal)[:, None] - geometry.heights_mm).argmin(axis=1)
        values = np.zeros(len(world), np.uint8)
        for k in range(geometry.shape[2]):
            own = nearest == k
            ij = np.rint(geometry.to_pixels(world[own], k)).astype(int)
            inside = ((ij >= 0) & (ij < geometry.shape[:2])).all(axis=1)
            near = np.abs(world[own] @ geometry.normal - geometry.heights_mm[k])
            inside &= near <= geometry.slice_thickness_mm[k] / 2
            part = np.zeros(own.sum(), np.uint8)
            part[inside] = self.array[ij[inside, 0], ij[inside, 1], k]
            values[own] = part
        return values.reshape(shape), affine


def bound(array, affine, volume, others=(), oriented=True, space=None):
    grid = nifti(np.ascontiguousarray(array), affine, others, oriented)
    binding = bind(grid, volume, space)
    return bound_regions([(None, grid.values)], grid, volume, binding)


def is_right(case, volume, regions, tolerance_mm):
    """Whether the one region lies where the lesion is; if not, it must be in doubt."""
    (roi,) = [region for region in regions if isinstance(region, Roi)]
    off = np.linalg.norm(case.centre(volume, roi) - case.truth())
    assert off <= tolerance_mm or roi.doubts, (off, roi.notes)
    return not roi.doubts


SEEDS = range(200)  # of each kind; where a mask is resampled, which takes longer, every fifth


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["as drawn", "reoriented", "straightened", "resampled", "qform"])
def test_honest_masks_of_random_geometries_are_bound_without_doubt(kind):
    for seed in SEEDS[:: 5 if kind == "resampled" else 1]:
        case = Case(seed)
        if kind == "as drawn":
            volume, _ = case.scan()
            if case.affine is None:
                continue
            array, affine = (case.array, case.affine) if volume.stored is None else case.file[:2]
            regions = bound(array, affine, volume)
        elif kind == "reoriented":
            volume, _ = case.scan()
            if case.affine is None:
                continue
            regions = bound(
                *reoriented(case.array, case.affine, *ORIENTATIONS[case.rng.integers(48)]), volume
            )
        elif kind == "straightened":  # drawn on the array, and saved without tilt and uneven distances
            volume, _ = case.scan()
            regions = bound(
                *reoriented(case.array, case.straight, *ORIENTATIONS[case.rng.integers(48)]), volume
            )
        elif kind == "qform":  # the scan's header has both, the mask's one of them
            if case.affine is None:
                continue
            other = case.affine.copy()
            other[:3] = rotation(case.rng, 10) @ other[:3]
            other[:3, 3] += case.rng.uniform(-30, 30, 3)
            volume, _ = case.scan(others=(other,))
            array, _, others = case.file
            regions = bound(array, others[0], volume)
        else:
            volume, _ = case.scan()
            array, affine = case.resampled(case.geometry, 2.0)
            regions = bound(array, affine, volume)
        (roi,) = regions
        slack = 0.0 if kind != "resampled" else 2.0 + max(case.geometry.spacing_mm) / 2
        if kind == "resampled" and case.uneven:
            slack += case.geometry.slice_gaps_mm.max() / 2  # the middle of uneven slices is not their mean
        assert is_right(case, volume, regions, slack + 1e-6), (seed, roi.doubts)
        if kind != "resampled":
            assert int(roi.mask.sum()) == int(case.array.sum())


def mirrored(case, array, affine):
    axes = [(0,), (1,), (0, 1)][case.rng.integers(3)]
    return array, np.diag([-1.0 if axis in axes else 1.0 for axis in range(4)]) @ affine


def identity(case, array, affine):
    return array, np.eye(4)


def lost_origin(case, array, affine):
    moved = affine.copy()
    moved[:3, 3] = 0
    return array, moved


def other_scan(case, array, affine):
    """As a mask saved with the header of another scan of as many voxels."""
    other = affine.copy()
    other[:3, :3] *= case.rng.uniform(1.1, 1.5)
    other[:3, 3] += case.rng.uniform(-40, 40, 3)
    return array, other


def turned_head(case, array, affine):
    other = affine.copy()
    other[:3] = rotation(case.rng, 25) @ np.diag([1, -1, -1]) @ other[:3]
    return array, other


WRONG = [mirrored, identity, lost_origin, other_scan, turned_head]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
def test_a_wrong_header_on_the_scans_array_is_in_doubt_and_bound_by_index(wrong):
    for seed in SEEDS:
        case = Case(seed)
        if case.affine is None:
            continue
        scan, _ = case.scan(others=(case.affine,))  # always from a file
        array, affine, _ = case.file
        regions = bound(*wrong(case, array, affine), scan)
        (roi,) = regions
        assert is_right(case, scan, regions, 1e-6) is False
        full = np.zeros(scan.geometry.shape, bool)
        full[roi.box] = roi.mask
        assert np.array_equal(full, nifti(array, affine).values > 0)
        assert all(word in roi.doubts[0] for word in ("mask: axes to", "scan: axes to", "--mask-space"))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=lambda f: f.__name__)
def test_a_wrong_header_on_a_series_array_is_right_or_in_doubt(wrong):
    for seed in SEEDS:
        case = Case(seed)
        volume = series_of(case.geometry)
        regions = bound(*wrong(case, case.array, case.straight), volume)
        is_right(case, volume, regions, 1e-6)


@pytest.mark.parametrize("space", ["scan", "mask", "both"])
def test_without_orientation_equal_arrays_are_bound_by_index(space):
    for seed in SEEDS:
        case = Case(seed)
        if case.affine is None or case.tilted:
            continue
        sizes = np.linalg.norm(case.affine[:3, :3], axis=0)
        guess = np.diag([-sizes[0], sizes[1], sizes[2], 1.0])
        array = case.array
        scan = scan_of(nifti(array, guess if space != "mask" else case.affine, oriented=space == "mask"))
        (roi,) = bound(array, guess if space != "scan" else case.affine, scan, oriented=space == "scan")
        assert np.array_equal(roi.mask, array[roi.box] > 0) and roi.mask.sum() == array.sum()
        assert roi.doubts == ()
        assert any("no orientation" in note for note in roi.notes) == (space != "both")
        # Voxels of another size, or no one array on the scan's side: in doubt.
        small = np.diag([-1.0, 1.0, 1.0, 1.0])
        if space != "scan":
            (roi,) = bound(array, small, scan, oriented=False)
            assert any("differ in size" in doubt for doubt in roi.doubts)
        if space == "mask":
            (roi,) = bound(array, guess, series_of(case.geometry), oriented=False)
            assert any("which way" in doubt for doubt in roi.doubts)


def test_a_mask_resampled_without_the_tilt_is_right_or_in_doubt():
    """A program that drops the shear resamples what it read; the tilt can be seen by the box."""
    doubtful = 0
    for seed in SEEDS[::5]:
        case = Case(seed)
        straight = Geometry.from_affine(case.geometry.shape, case.straight)
        if not case.tilted or case.uneven:
            continue
        volume = series_of(case.geometry)
        array, affine = case.resampled(straight, 2.0)
        regions = bound(array, affine, volume)
        if any(isinstance(region, Roi) for region in regions):
            doubtful += not is_right(case, volume, [r for r in regions if isinstance(r, Roi)], 8.0)
    assert doubtful


def test_a_part_of_the_straightened_array_is_in_doubt():
    for seed in SEEDS[::5]:
        case = Case(seed)
        box = tuple(
            slice(max(0, s.start - 1), s.stop + 1) for s in Roi.from_mask(case.array > 0, case.geometry).box
        )
        affine = case.straight.copy()
        affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
        volume = series_of(case.geometry)
        regions = [r for r in bound(case.array[box], affine, volume) if isinstance(r, Roi)]
        if regions:
            is_right(
                case, volume, regions, 0.8 * max(case.geometry.slice_gaps_mm.max(), *case.geometry.spacing_mm)
            )


def test_boxes_that_hardly_overlap_are_in_doubt():
    case = Case(3)
    volume = series_of(case.geometry)
    array, affine = case.resampled(case.geometry, 2.0)
    assert bound(array, affine, volume)[0].doubts == ()
    away = affine.copy()
    away[:3, 3] += 0.2 * (np.array(array.shape) * 2.0) * [1, 0, 0]
    array[:] = 1
    (roi,) = [r for r in bound(array, away, volume) if isinstance(r, Roi)]
    assert any("holds the other" in doubt for doubt in roi.doubts)


def test_mask_space_overrules():
    case = Case(1)
    scan, _ = case.scan(others=(case.affine,))
    array, affine, _ = case.file
    array, wrong = lost_origin(case, array, affine)
    (roi,) = bound(array, wrong, scan, space="index")
    assert roi.doubts == () and is_right(case, scan, [roi], 1e-6)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [0, 0, 1]
    regions = bound(array, moved, scan, space="world")
    assert all(region.doubts == () or "outside" in region.doubts[0] for region in regions)
    with pytest.raises(BindingError, match="voxels"):
        bound(array[1:], affine, scan, space="index")
    with pytest.raises(BindingError, match="no orientation"):
        bound(array, affine, scan, oriented=False, space="world")


def test_another_shape_without_orientation_cannot_be_bound():
    case = Case(1)
    scan, _ = case.scan(others=(case.affine,))
    array, affine, _ = case.file
    with pytest.raises(BindingError, match="save it on the scan's grid"):
        bound(array[1:], affine, scan, oriented=False)


# As a program of others writes them


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["foot first", "head first"])
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("tilt", [0, 15, -15])
def test_masks_drawn_on_what_dcm2niix_writes_are_right_or_in_doubt(tmp_path, tilt, uneven, order):
    """A region drawn where the head has 70 HU, a ball of 15 mm, on the file of the scanner's slices and on
    the one without tilt and with even slices. dcm2niix puts the latter elsewhere at times."""
    from dcm2niix import bin as program

    heights = [*range(-72, 0, 8), *range(0, 73, 12 if uneven else 8)]
    slices = dicom_slices(heights, tilt_deg=tilt, intercept=0, GantryDetectorTilt=tilt)
    for number, one in enumerate(slices[::order], start=1):
        one.InstanceNumber = number
    write_dicom(tmp_path / "ct", slices)
    command = [program, "-o", tmp_path, "-f", "x", "-b", "n", "-z", "n", tmp_path / "ct"]
    subprocess.run(command, check=True, capture_output=True)
    files = sorted(tmp_path.glob("*.nii"))
    assert len(files) == 1 + bool(tilt or uneven)
    for path in files:
        image = nibabel.load(path)
        drawn = largest_part(np.abs(np.asanyarray(image.dataobj) - 70) <= 2).astype(np.uint8)
        for form in ("sform", "qform", "both"):
            mask = nibabel.Nifti1Image(drawn, None)
            mask.set_sform(image.get_sform(), int(form != "qform"))
            mask.set_qform(image.get_qform(), int(form != "sform"))
            nibabel.save(mask, tmp_path / "m.nii.gz")
            for scan in (tmp_path / "ct", path):
                volume = read_volume(scan)
                (roi,) = (r for r in read_rois(tmp_path / "m.nii.gz", volume) if isinstance(r, Roi))
                voxels = np.argwhere(roi.mask) + roi.start
                centre = volume.geometry.to_world(voxels).mean(axis=0)
                right = np.linalg.norm(centre - [30, 40, 10]) < 8 or scan == path
                assert right or roi.doubts, (path.name, form, centre, roi.notes)
                if scan == path or (path.name == "x.nii" and form != "sform"):
                    assert right and not roi.doubts
                    assert np.mean(np.abs(volume.hu[tuple(voxels.T)] - 70) <= 2) == 1
