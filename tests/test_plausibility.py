import nibabel
import numpy as np
import pytest
from phantoms.io_cases import CT, head_affine, stack_hu

from situs import plausibility
from situs.geometry import Geometry
from situs.io import read_rois, read_volume
from situs.plausibility import gray_levels
from situs.volume import Roi, Volume, split_lesions

SHAPE = (100, 120, 20)
AFFINE = head_affine(SHAPE, (2.0, 2.0, 8.0))
GEOMETRY = Geometry.from_affine(SHAPE, AFFINE)
HU = stack_hu(GEOMETRY)


def scan_doubts(scan):
    return plausibility.scan_doubts(scan, gray_levels(scan))


def lesion_doubts(scan, lesion):
    (doubts,) = plausibility.lesion_doubts(scan, [lesion], gray_levels(scan))
    return doubts


def volume(hu):
    return Volume(hu, GEOMETRY)


def region(i, j, k):
    mask = np.zeros(SHAPE, bool)
    mask[i, j, k] = True
    return Roi.from_mask(mask, GEOMETRY)


@pytest.mark.parametrize("window", [(-1024, 3000), (-20, 100), (0, 80), (-160, 240)])
def test_an_ordinary_head_is_not_doubted_whole_or_clipped(window):
    assert scan_doubts(volume(np.clip(HU, *window))) == ()


@pytest.mark.parametrize("top", [58, 80, 100, 110])
@pytest.mark.parametrize("noise_hu", [0, 3])
def test_bone_of_a_narrow_window_is_seen_through_the_noise_of_a_picture(top, noise_hu):
    noise = np.random.default_rng(0).normal(0, noise_hu, SHAPE)
    assert scan_doubts(volume(np.rint(np.clip(HU, 0, top) + noise).astype(np.int16))) == ()


def test_where_blood_is_as_dense_as_bone_a_lesion_is_not_said_to_lie_in_bone():
    blood = region(slice(40, 50), slice(60, 70), slice(8, 10))
    hu = HU.copy()
    hu[40:50, 60:70, 8:10] = 85
    for window in ((0, 80), (-1024, 3000)):
        assert lesion_doubts(volume(np.clip(hu, *window)), blood) == ()


def test_a_sliver_of_a_bleed_is_doubted_and_the_whole_bleed_is_not():
    bleed = np.zeros(SHAPE, bool)
    bleed[40:52, 60:75, 8:11] = True
    hu = np.where(bleed, 65, HU)
    sliver, half, whole = (region(slice(40, end), slice(60, 75), slice(8, 11)) for end in (43, 47, 52))
    assert "small part of something bright" in " ".join(lesion_doubts(volume(hu), sliver))
    assert lesion_doubts(volume(hu), half) == lesion_doubts(volume(hu), whole) == ()
    assert lesion_doubts(volume(HU), sliver) == ()  # nothing bright
    beside = region(slice(36, 39), slice(60, 75), slice(8, 11))  # it touches nothing of it
    assert lesion_doubts(volume(hu), beside) == ()


def test_bone_beside_a_lesion_is_no_bleed():
    """Where it is seen in part, it is as bright."""
    bone = np.argwhere(HU[:, 60, 9] > 300)[:, 0]
    inner = int(bone[bone < 50].max()) + 1
    hu = HU.copy()
    hu[inner : inner + 2, 40:80] = 70
    assert lesion_doubts(volume(hu), region(slice(inner, inner + 2), slice(58, 62), slice(9, 10))) == ()


def test_no_skull():
    assert "No skull" in " ".join(scan_doubts(volume(np.where(HU > 200, 40, HU))))


def test_an_open_skull():
    hu = HU.copy()
    hu[:, :60] = -1000  # the back half is not in the picture
    assert "No skull" in " ".join(scan_doubts(volume(hu)))


def test_no_brain():
    doubts = scan_doubts(volume(np.where((HU > 0) & (HU < 100), -1000, HU)))
    assert any("No brain" in d for d in doubts) and not any("skull" in d for d in doubts)


def test_noise_of_thin_slices_hides_no_brain():
    noise = np.random.default_rng(0).normal(0, 50, SHAPE)
    assert scan_doubts(volume(np.rint(HU + noise).astype(np.int16))) == ()


def test_mr():
    """A T1-like head: dark air and bone, bright scalp, brain in between, in units of its own."""
    ijk = np.indices(SHAPE).reshape(3, -1).T
    radius = np.linalg.norm((ijk - [49.5, 59.5, 9.5]) * [2, 2, 8] / [80, 97, 90], axis=1)
    mr = np.select([radius < 0.85, radius < 0.93, radius < 1], [320, 15, 700], 3).reshape(SHAPE)
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    assert any("look like MR" in d for d in scan_doubts(volume((mr + noise).clip(0).astype(np.int16))))


def test_upside_down():
    """The lower slices show a face in front of a small skull; a part of a head is not doubted."""
    hu = HU.copy()
    i, j = np.ogrid[:100, :120]
    hu[:, :, :8] = np.where(((i - 50) / 40) ** 2 + ((j - 60) / 50) ** 2 < 1, 30, -1000)[..., None]
    hu[35:65, 20:55, :8] = HU[35:65, 20:55, 9:10]
    upside = volume(np.ascontiguousarray(hu[:, :, ::-1]))
    assert any("upside down" in d for d in scan_doubts(upside)) and scan_doubts(volume(hu)) == ()
    for part in (HU, HU[:, :, ::-1]):
        assert not any("upside down" in d for d in scan_doubts(volume(part)))


def test_a_wrong_pixel_size():
    g = Geometry.from_affine(SHAPE, head_affine(SHAPE, (4.0, 4.0, 8.0)))
    assert any("pixel size" in d for d in scan_doubts(Volume(HU, g)))


@pytest.mark.parametrize("window", [(-1024, 3000), (-20, 100)])
class TestLesions:
    def test_in_the_brain(self, window):
        assert lesion_doubts(volume(np.clip(HU, *window)), region(slice(40, 50), slice(60, 70), 9)) == ()

    def test_in_air_within_the_head(self, window):
        """A sinus is air, and one of the sites."""
        hu = HU.copy()
        hu[45:55, 95:102, 9] = -1000
        assert lesion_doubts(volume(np.clip(hu, *window)), region(slice(46, 54), slice(96, 101), 9)) == ()

    def test_in_the_air_outside(self, window):
        (doubt,) = lesion_doubts(volume(np.clip(HU, *window)), region(slice(2, 8), slice(2, 9), 9))
        assert "outside the head" in doubt

    def test_on_the_table(self, window):
        hu = HU.copy()
        hu[20:80, 2:6] = 50
        (doubt,) = lesion_doubts(volume(np.clip(hu, *window)), region(slice(40, 50), slice(3, 5), 9))
        assert "outside the head" in doubt

    def test_in_bone(self, window):
        bone = np.argwhere((HU[:, :, 9] == 1000) & (np.indices(SHAPE[:2])[1] > 80))[:20]
        (doubt,) = lesion_doubts(volume(np.clip(HU, *window)), region(*bone.T, 9))
        assert "in bone" in doubt

    def test_an_inverted_mask(self, window):
        inverted = np.ones(SHAPE, bool)
        inverted[40:50, 60:70, 9] = False
        doubts = lesion_doubts(volume(np.clip(HU, *window)), Roi.from_mask(inverted, GEOMETRY))
        assert any("inverted" in d for d in doubts)

    @pytest.mark.parametrize("slices", [slice(9, 10), slice(4, 14)])
    def test_half_a_hemisphere(self, window, slices):
        mask = (HU > 0) & (HU < 100)
        mask[: SHAPE[0] // 2] = False
        mask[..., : slices.start] = mask[..., slices.stop :] = False
        (doubt,) = lesion_doubts(volume(np.clip(HU, *window)), Roi.from_mask(mask, GEOMETRY))
        assert "too large for one site" in doubt

    def test_a_large_lesion_of_many_slices(self, window):
        small, large = (region(slice(35, 35 + n), slice(50, 50 + n), slice(3, 16)) for n in (15, 28))
        assert small.volume_ml < 200 < large.volume_ml
        assert lesion_doubts(volume(np.clip(HU, *window)), small) == ()
        (doubt,) = lesion_doubts(volume(np.clip(HU, *window)), large)
        assert "over 200 ml" in doubt


def test_doubts_do_not_depend_on_the_voxel_order(tmp_path):
    """The same patient, axes swapped and flipped."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:8, 2:9, 9], mask[40:50, 60:70, 9] = 1, 2
    ornt = np.array([[2, -1], [0, -1], [1, 1]])
    for name, data in (("scan", HU), ("m", mask)):
        nibabel.save(nibabel.Nifti1Image(data, AFFINE).as_reoriented(ornt), tmp_path / f"{name}.nii")
    scan = read_volume(tmp_path / "scan.nii")
    assert scan_doubts(scan) == ()
    outside, inside = read_rois(tmp_path / "m.nii", scan)
    assert "outside" in lesion_doubts(scan, outside)[0] and lesion_doubts(scan, inside) == ()


@pytest.mark.slow
@pytest.mark.skipif(not CT.is_dir(), reason="the real scans are not here")
def test_no_real_scan_and_no_real_lesion_is_doubted():
    """All real head CTs here, clipped or not, turned, tilted; sinuses are among the regions."""
    paths = [
        p
        for p in sorted(CT.glob("*/*.nii.gz"))
        if p.parent.name != "lesions" and "_lesion" not in p.name and "_rois" not in p.name
    ]
    assert len(paths) >= 41
    lesions = 0
    for path in [*paths, CT / "ge"]:
        scan = read_volume(path)
        assert scan_doubts(scan) == (), path.name
        stem = path.name.removesuffix(".nii.gz")
        masks = [path.with_name(f"{stem}{suffix}.nii.gz") for suffix in ("_lesion", "_rois")]
        for mask in filter(lambda p: p.exists(), masks):
            for roi in read_rois(mask, scan):
                for lesion in split_lesions(roi)[:1]:
                    assert lesion_doubts(scan, lesion) == (), (mask.name, roi.value)
                    lesions += 1
    assert lesions >= 169 + 36
