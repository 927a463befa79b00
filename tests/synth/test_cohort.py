"""Cohorts: the same bytes however they are made, what the manifest says, and what is refused.

Heads are small ones, the scans' grid is small, and heads change every two scans, not every eight; everything
else is as shipped.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import joblib
import nibabel
import numpy as np
import pytest
from phantoms.small_head import PRESENT, draw_small_plan, mirrored, small_head
from scipy import stats

from situs.anatomy import SITE_KEYS
from situs.cohort.manifest import describe_cohort
from situs.errors import InputError, OutputError
from situs.finding import SIDES
from situs.synth import cohort, pose, render
from situs.synth.cohort import paper_slices, render_cohort
from situs.synth.lesion import LESION_KINDS
from situs.synth.lesions import LesionGrower

HEADS = [Path("maps/head_a.nii.gz"), Path("maps/head_b.nii.gz")]
SCANS = 5  # two of the first head, two of the second, one of the first
GROWERS = {"head_a.nii.gz": small_head("head_a"), "head_b.nii.gz": mirrored(small_head("head_b"))}
GROWERS = {name: LesionGrower(head) for name, head in GROWERS.items()}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort, "_grower", lambda path, *settings: GROWERS[path.name])
        patch.setattr(pose, "draw_plan", draw_small_plan)
        patch.setattr(cohort, "_BATCH", 2)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A cohort made in one go; read only."""
    out = tmp_path_factory.mktemp("cohort")
    assert render_cohort(HEADS, out, SCANS, seed=5) == out / "manifest.csv"
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def read(folder: Path, name: str) -> np.ndarray:
    return np.asanyarray(nibabel.load(folder / name).dataobj)


def rows_of(folder: Path, numbers: list[int]) -> list[list]:
    return [row for n in numbers for row in json.loads((folder / "rows" / f"{n:05d}.json").read_text())]


@pytest.mark.slow
def test_two_jobs_write_the_same_bytes_as_one(made, tmp_path):
    """Threads here, so that the small heads are seen; scans are then made side by side and out of order."""
    with joblib.parallel_config(backend="threading"):
        render_cohort(HEADS, tmp_path, SCANS, seed=5, jobs=2)
    assert contents(tmp_path) == contents(made)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(made, tmp_path):
    render_cohort(HEADS, tmp_path, 3, seed=5)
    assert len(rows(tmp_path)) == len(rows_of(made, [0, 1, 2]))
    for stale in ("rows/00001.json", "scans/00001.nii.gz", "sites/00002.nii.gz", "rows/00002.json"):
        (tmp_path / stale).unlink()
    (tmp_path / "manifest.csv").unlink()
    kept = (tmp_path / "scans" / "00000.nii.gz").stat().st_mtime_ns
    render_cohort(HEADS, tmp_path, SCANS, seed=5)
    assert contents(tmp_path) == contents(made)
    assert (tmp_path / "scans" / "00000.nii.gz").stat().st_mtime_ns == kept  # not rendered again


def test_a_run_that_is_stopped_while_it_writes_leaves_no_piece_of_a_file(tmp_path, monkeypatch):
    write = Path.write_bytes

    def stop(path, content):
        if path.suffix == ".gz":
            write(path, b"half")
            raise KeyboardInterrupt
        return write(path, content)

    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / ".writing-99999999.00000.nii.gz").write_bytes(b"of a process that was killed")
    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        render_cohort(HEADS, tmp_path, 1, seed=5)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {".lock", "cohort.json"}


def test_a_finished_cohort_is_left_as_it_is(made):
    before = contents(made)
    steps = []
    render_cohort(HEADS, made, SCANS, seed=5, progress=lambda *step: steps.append(step))
    assert contents(made) == before and steps == []


def test_another_seed_makes_other_scans(made, tmp_path):
    render_cohort(HEADS, tmp_path, 2, seed=6)
    for name in ("scans/00000.nii.gz", "scans/00001.nii.gz"):
        assert not np.array_equal(read(tmp_path, name), read(made, name))
    assert not np.array_equal(read(made, "scans/00000.nii.gz"), read(made, "scans/00001.nii.gz"))


@pytest.mark.slow
def test_more_lesions_can_be_asked_for_and_belong_to_the_settings(made, tmp_path):
    render_cohort(HEADS, tmp_path / "many", 2, seed=5, lesions=40)
    render_cohort(HEADS, tmp_path / "few", 2, seed=5, lesions=3)
    assert len(rows(tmp_path / "few")) <= 6 < len(rows_of(made, [0, 1])) < len(rows(tmp_path / "many"))
    with pytest.raises(OutputError, match="other settings"):
        render_cohort(HEADS, tmp_path / "few", 2, seed=5)
    # A cohort of before there was a choice goes on.
    file = tmp_path / "few" / "cohort.json"
    settings = json.loads(file.read_text())
    del settings["lesions"]
    file.write_text(json.dumps(settings))
    render_cohort(HEADS, tmp_path / "few", 2, seed=5)


def test_eight_scans_of_one_head_then_of_the_next_and_progress_counts_them(tmp_path, monkeypatch):
    def note(grower, out, n, rng, mix, lesions):
        drawn = [int(number) for number in rng.integers(99, size=3)]
        row = [str(n), grower.head.name, drawn[0], "thalamus", *map(str, drawn[1:]), "", "sites", "lateral"]
        (out / "rows" / f"{n:05d}.json").write_text(json.dumps([row]))

    monkeypatch.setattr(cohort, "_BATCH", 8)
    monkeypatch.setattr(cohort, "_render_one", note)
    steps = []
    render_cohort(HEADS, tmp_path, 20, progress=lambda *step: steps.append(step))
    assert steps == [("scans", 8, 20), ("scans", 16, 20), ("scans", 20, 20)]
    found = rows(tmp_path)
    assert [row["scan"] for row in found] == [str(n) for n in range(20)]
    assert [row["roi"] for row in found] == [("head_a", "head_b")[n // 8 % 2] for n in range(20)]
    assert len({(row["value"], row["patient"], row["side"]) for row in found}) == 20  # own streams


def test_brains_of_all_ages(tmp_path, monkeypatch):
    """The scans of a batch are of one age, of others the next ones, with the same seed the same."""
    ages = []

    def grower(path, atrophy_mm, listed):
        ages.append(atrophy_mm)
        return GROWERS[path.name]

    monkeypatch.setattr(cohort, "_grower", grower)
    monkeypatch.setattr(cohort, "_render_one", lambda grower, out, n, *rest: None)
    monkeypatch.setattr(cohort, "_write_manifest", lambda out, scans: None)
    for name in ("once", "again"):
        render_cohort(HEADS, tmp_path / name, 400, seed=3)
    first, again = ages[:400], ages[400:]
    assert first == again and all(a == b for a, b in zip(first[::2], first[1::2], strict=True))
    for atrophy_mm, share in zip(cohort._ATROPHY_MM, cohort._P_ATROPHY, strict=True):
        assert first.count(atrophy_mm) / 400 == pytest.approx(share, abs=0.08)


def test_the_manifest_has_the_columns_and_names_files_that_are_there(made):
    first_line = (made / "manifest.csv").read_text().splitlines()[0]
    assert first_line == "scan,roi,value,site,patient,side,kind,sites,lateral"
    found = rows(made)
    assert len(found) > 5 * SCANS
    for row in found:
        assert row["site"] in PRESENT and row["side"] in SIDES and row["kind"] in LESION_KINDS
        assert all((made / row[name]).is_file() for name in ("scan", "roi", "sites", "lateral"))
    named = {row[name] for row in found for name in ("scan", "roi", "sites", "lateral")}
    images = {str(p.relative_to(made)) for p in made.rglob("*.nii.gz")}
    assert named == images  # and nothing lies there that no row names
    assert {row["scan"] for row in found} == {f"scans/{n:05d}.nii.gz" for n in range(SCANS)}


def test_every_value_of_a_mask_has_its_row_and_every_row_its_pixels(made):
    values = {}
    for row in rows(made):
        values.setdefault(row["roi"], []).append(int(row["value"]))
        assert row["roi"].startswith(f"rois/{row['scan'][6:11]}_")
    for name, expected in values.items():
        mask = read(made, name)
        assert sorted(set(np.unique(mask).tolist()) - {0}) == sorted(expected)
        assert len(expected) == len(set(expected)) <= 14


def test_a_lesion_that_others_cover_has_no_row(tmp_path, monkeypatch):
    """All lesions of a scan are given the same mask: what is left is the last one marked in a file."""
    draw_scan = render.render_scan

    def one_mask(head, lesions, plan, rng):
        scan = draw_scan(head, lesions, plan, rng)
        whole = tuple(slice(0, n) for n in scan.sites.shape)
        return replace(scan, drawn=[(whole, scan.sites > 0)] * len(lesions))

    monkeypatch.setattr(render, "render_scan", one_mask)
    render_cohort(HEADS, tmp_path, 1, seed=5)
    values = {row["roi"]: int(row["value"]) for row in rows(tmp_path)}
    assert len(values) == len(rows(tmp_path)) and max(values.values()) > 1
    for name, value in values.items():
        assert set(np.unique(read(tmp_path, name))) == {0, value}


def test_a_scans_files_share_one_grid_and_hold_what_they_should(made):
    for row in rows(made):
        images = {name: nibabel.load(made / row[name]) for name in ("scan", "roi", "sites", "lateral")}
        for image in images.values():
            assert image.shape == images["scan"].shape == (72, 80, 12)
            assert np.allclose(image.affine, images["scan"].affine)
            assert image.header.get_xyzt_units()[0] == "mm"
        kinds = {name: image.get_data_dtype() for name, image in images.items()}
        assert kinds == {"scan": np.int16, "roi": np.uint8, "sites": np.uint8, "lateral": np.int8}


def test_a_mask_lies_where_the_site_map_shows_its_site(made):
    """Masks are drawn freely, so in the mean, and at least in part every time."""
    shares = []
    for row in rows(made):
        under = read(made, row["sites"])[read(made, row["roi"]) == int(row["value"])]
        shares.append((under == SITE_KEYS.index(row["site"]) + 1).mean())
    assert min(shares) > 0.05 and np.mean(shares) > 0.6


def test_the_side_agrees_with_the_exact_distances_to_the_midline(made):
    seen = Counter()
    for row in rows(made):
        lateral = read(made, row["lateral"])[read(made, row["roi"]) == int(row["value"])].astype(float)
        on_left, on_right = (lateral > 0).sum(), (lateral < 0).sum()
        seen[row["side"]] += 1
        if row["side"] == "left":
            assert on_left > on_right and lateral.mean() > 0
        elif row["side"] == "right":
            assert on_right > on_left or (lateral == 0).any()
            assert lateral.mean() <= 0
        elif row["side"] == "midline":
            assert abs(lateral.mean()) <= 1.5 or lateral.min() <= 0 <= lateral.max()
            assert abs(lateral.mean()) <= 1.5 or min(on_left, on_right) > 0.15 * lateral.size
        else:
            assert min(on_left, on_right) > 0 and np.ptp(lateral) > 35
        if abs(lateral.mean()) > 1.5 and abs(lateral).min() > 0 and on_left * on_right == 0:
            assert row["side"] == ("left" if on_left else "right")
    assert min(seen["left"], seen["right"], seen["midline"]) >= 3


def test_the_patient_is_the_head(made):
    patients = {row["scan"]: row["patient"] for row in rows(made)}
    assert patients == {f"scans/{n:05d}.nii.gz": f"head_{'aabba'[n]}" for n in range(SCANS)}


def test_all_sites_of_the_heads_come_up(made):
    assert {row["site"] for row in rows(made)} == set(PRESENT)


def test_a_folder_of_other_settings_is_refused(made):
    before = contents(made)
    for heads, options in (
        (HEADS, {"seed": 4}),
        (HEADS[:1], {"seed": 5}),
        (HEADS[::-1], {"seed": 5}),
        (HEADS, {"seed": 5, "sites": "paper"}),
    ):
        with pytest.raises(OutputError, match="other settings") as caught:
            render_cohort(heads, made, SCANS, **options)
        assert str(made) in str(caught.value) and "\n" not in str(caught.value)
    assert contents(made) == before


@pytest.mark.parametrize(
    ("heads", "scans", "options", "message"),
    [
        ([], 3, {}, "heads: expected at least one head label map, got none"),
        (HEADS, 0, {}, "scans: expected at least 1, got 0"),
        (HEADS, -1, {}, "scans: .* got -1"),
        (HEADS, 2, {"sites": "even"}, "sites: expected 'paper' or 'balanced', got 'even'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(tmp_path, heads, scans, options, message):
    with pytest.raises(InputError, match=message):
        render_cohort(heads, tmp_path / "out", scans, **options)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        render_cohort(HEADS, tmp_path / "file" / "out", 1)


@pytest.mark.slow
@pytest.mark.parametrize("good", [0, 2, 4])
def test_a_run_that_breaks_leaves_only_whole_files_and_can_go_on(made, tmp_path, monkeypatch, good):
    """The disk fills up in the middle of an image, after `good` whole ones."""
    write, calls = Path.write_bytes, []

    def write_some(path, content):
        calls.extend([path] * (path.suffix == ".gz"))
        if len(calls) <= good:
            return write(path, content)
        write(path, b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_some)
        with pytest.raises(OSError, match="No space"):
            render_cohort(HEADS, tmp_path, 1, seed=5)
    whole = contents(made)
    images = [name for name in contents(tmp_path) if not Path(name).name.startswith(".")]
    assert sum(name.endswith(".nii.gz") for name in images) == good
    for name in set(images) - {"cohort.json"}:
        assert (tmp_path / name).read_bytes() == whole[name]
    assert not (tmp_path / "manifest.csv").exists() and not list((tmp_path / "rows").iterdir())
    render_cohort(HEADS, tmp_path, 1, seed=5)
    for name, content in contents(tmp_path).items():
        if name != "manifest.csv" and not Path(name).name.startswith("."):
            assert content == whole[name]


def test_a_manifest_that_cannot_be_finished_leaves_the_old_one(made, tmp_path, monkeypatch):
    render_cohort(HEADS, tmp_path, 1, seed=5)
    before = (tmp_path / "manifest.csv").read_bytes()

    def break_off(file: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        render_cohort(HEADS, tmp_path, 2, seed=5)
        after = (tmp_path / "manifest.csv").read_bytes()
        patch.setattr(Path, "replace", break_off)
        with pytest.raises(OSError, match="No space"):
            render_cohort(HEADS, tmp_path, 1, seed=5)
    assert (tmp_path / "manifest.csv").read_bytes() == after and after.startswith(before)


def test_the_papers_counts():
    """Table 1 of arXiv 1710.09180; its slices sum to 15,425."""
    counts = paper_slices()
    assert tuple(counts) == SITE_KEYS and sum(counts.values()) == 15425
    assert (counts["frontal_region"], counts["thalamus"], counts["maxillary"]) == (4263, 51, 622)


@pytest.mark.parametrize("available", [SITE_KEYS, PRESENT])
def test_the_paper_mix_draws_sites_as_often_as_the_paper_has_slices(available):
    rng = np.random.default_rng(0)
    drawn = Counter(
        str(site) for _ in range(1000) for site in cohort._draw_sites(available, "paper", rng, 14)
    )
    assert set(drawn) <= set(available)
    slices = np.array([paper_slices()[site] for site in available])
    expected = slices / slices.sum() * drawn.total()
    assert stats.chisquare([drawn[site] for site in available], expected).pvalue > 0.001


def test_the_paper_mix_is_not_even():
    """The test above can tell the two apart."""
    rng = np.random.default_rng(0)
    drawn = Counter(
        str(site) for _ in range(1000) for site in cohort._draw_sites(SITE_KEYS, "balanced", rng, 14)
    )
    slices = np.array([paper_slices()[site] for site in SITE_KEYS])
    expected = slices / slices.sum() * drawn.total()
    assert stats.chisquare([drawn[site] for site in SITE_KEYS], expected).pvalue < 1e-9


@pytest.mark.parametrize("available", [SITE_KEYS, PRESENT, PRESENT[:2], PRESENT[:1]])
def test_the_balanced_mix_draws_every_site_as_often(available):
    rng = np.random.default_rng(1)
    total = Counter()
    for _ in range(300):
        drawn = Counter(str(site) for site in cohort._draw_sites(available, "balanced", rng, 14))
        assert drawn.total() == 14  # in one scan the counts differ by one at most
        assert max(drawn.values()) - min(drawn[site] for site in available) <= 1
        total += drawn
    expected = 300 * 14 / len(available)
    assert [total[site] for site in available] == pytest.approx([expected] * len(available), rel=0.2)


def test_marked_groups_hold_every_lesion_once_and_mostly_one():
    rng = np.random.default_rng(0)
    sizes = Counter()
    for _ in range(400):
        items = [int(i) for i in rng.choice(30, size=14, replace=False)]
        groups = cohort._split_groups(items, rng)
        assert sorted(i for group in groups for i in group) == sorted(items)
        sizes.update(len(group) for group in groups)
    assert set(sizes) <= set(range(1, 15))  # few of a scan, or all that are left
    assert 0.55 < sizes[1] / sizes.total() < 0.75 and sizes[14] > 5
    assert cohort._split_groups([], rng) == []


def test_a_rendered_cohort_describes_itself_and_no_other_does(tmp_path):
    settings = {"format": "x", "heads": ["a.nii.gz", "b.nii.gz"], "seed": 7, "sites": "paper"}
    (tmp_path / "cohort.json").write_text(json.dumps(settings))
    data = describe_cohort(tmp_path, ["a", "b", "a"])["data"]
    assert "2 head label maps (a, b), seed 7, sites paper" in data
    assert describe_cohort(tmp_path, ["a", "somebody"]) == {}  # "no patient's" would not be true
    assert describe_cohort(tmp_path / "elsewhere", ["a"]) == {}
