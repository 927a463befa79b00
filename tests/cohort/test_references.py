"""References added and removed: found at once, as if they had always been there, or nothing is written."""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from phantoms.small_bundle import small_bundle
from phantoms.small_cohort import BANDS, draw_cohort, write_manifest

from situs.anatomy import SITE_INDEX, SITE_KEYS, SITES
from situs.bundle import read_bundle
from situs.bundle.card import model_card
from situs.bundle.change import replace_references
from situs.bundle.pictures import FIELD_MM, OUTLINE, SIZE_PX
from situs.cli import main
from situs.cohort import references as module
from situs.cohort.manifest import read_manifest
from situs.cohort.reference_tables import format_references_csv, format_references_text
from situs.cohort.references import (
    add_references,
    join_references,
    match_references,
    remove_references,
)
from situs.errors import BundleError, InputError, ManifestError, OutputError
from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.neighbors import References
from situs.records import take_rows


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two patients with a scan each, four regions of some slices in each; its views are made once."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"), patients=2, scans=1, painted=False)


@pytest.fixture
def bundle(tmp_path):
    """A bundle of one's own with 60 references, 4 of each site, of 4 heads."""
    return shutil.copytree(small_bundle(), tmp_path / "mine")


def content(folder):
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def areas(cohort):
    """{row number: {slice: pixels}} of every region, counted in the files."""
    by_row = {}
    for n, row in enumerate(read_manifest(cohort)):
        counts = (np.asarray(nib.load(row.roi).dataobj) == row.value).sum(axis=(0, 1))
        by_row[n] = {k: int(counts[k]) for k in np.flatnonzero(counts)}
    return by_row


def expected_ids(cohort):
    return [
        f"scan{n // 4}/roi{n // 4}/{n % 4 + 1}/{k}" for n, slices in areas(cohort).items() for k in slices
    ]


# --- add ---


def test_an_added_case_is_found_at_once(bundle, cohort):
    """The same region, said to be another patient's: its own reference is at the distance of rounding."""
    change = add_references(bundle, cohort)
    ids = expected_ids(cohort)
    assert (change.added, change.total) == (len(ids), 60 + len(ids))
    labeler = Labeler.load(bundle)
    references = labeler.bundle.references
    assert references.ids[60:].tolist() == ids
    assert set(references.patients[60:].tolist()) == {"p0", "p1"}

    volume = read_volume(cohort / "scan0.nii.gz")
    rois = read_rois(cohort / "roi0.nii.gz", volume)
    for finding, site in zip(labeler.label(volume, rois, patient="somebody else"), BANDS, strict=True):
        nearest = finding.nearest[0]
        assert nearest.id in [f"scan0/roi0/{finding.roi_value}/{k}" for k in finding.slices]
        assert nearest.site == site
        stored = references.embeddings[references.ids == nearest.id][0].astype(float)
        # Half a unit in the last place of float16 is 2**-11 of a number, or 2**-25 of one near 0.
        assert nearest.distance <= 1.01 * np.linalg.norm(stored * 2**-11) + 1e-5

    for finding in labeler.label(volume, rois, patient="p0"):
        assert not any(reference.id.startswith("scan0/") for reference in finding.nearest)


def test_the_site_is_the_manifests(bundle, cohort):
    add_references(bundle, cohort)
    added = read_bundle(bundle).references.sites[60:]
    rows = read_manifest(cohort)
    assert added.tolist() == [SITE_INDEX[rows[n].site] for n, slices in areas(cohort).items() for _ in slices]


def test_case_by_case_is_the_same_as_all_at_once(bundle, cohort, tmp_path):
    whole = add_references(bundle, cohort, tmp_path / "whole").path
    rows = list(csv.DictReader((cohort / "manifest.csv").read_text().splitlines()))
    for patient in ("p0", "p1"):
        part = tmp_path / patient
        part.mkdir()
        own = [row for row in rows if row["patient"] == patient]
        for name in {row[column] for row in own for column in ("scan", "roi")}:
            shutil.copy(cohort / name, part)
        write_manifest(part, own)
        add_references(bundle, part)
    a, b = read_bundle(whole).references, read_bundle(bundle).references
    assert a.ids.tolist() == b.ids.tolist() and a.patients.tolist() == b.patients.tolist()
    np.testing.assert_array_equal(a.sites, b.sites)
    np.testing.assert_allclose(a.embeddings, b.embeddings, rtol=2e-3, atol=1e-4)


def test_at_most_so_many_slices_of_a_region(bundle, cohort):
    add_references(bundle, cohort, max_slices=1)
    counts = Counter(name.rpartition("/")[0] for name in read_bundle(bundle).references.ids[60:])
    assert set(counts.values()) == {1} and len(counts) == len(areas(cohort))


def test_as_many_slices_as_in_the_training(bundle, cohort, monkeypatch):
    opened = read_bundle(bundle)
    opened.description["recipe"]["max_slices"] = 2
    monkeypatch.setattr(module, "read_bundle", lambda _: opened)
    counts = [len(slices) for slices in areas(cohort).values()]
    assert max(counts) > 2
    assert add_references(bundle, cohort).added == sum(min(2, n) for n in counts)


def test_ids_that_are_there_are_refused(bundle, cohort):
    add_references(bundle, cohort)
    before = content(bundle)
    with pytest.raises(
        ManifestError, match=r"are there already, such as 'scan0/roi0/1/\d': remove them first"
    ):
        add_references(bundle, cohort, max_slices=1)
    assert content(bundle) == before


def test_an_id_comes_once():
    def named(*ids):
        n = len(ids)
        return References(np.zeros((n, 2), np.float16), np.zeros(n, int), np.array(ids), np.array(["p"] * n))

    joined = join_references(named("a", "b"), named("a much longer name"))
    assert joined.ids.tolist() == ["a", "b", "a much longer name"]
    with pytest.raises(ManifestError, match="'b'"):
        join_references(named("a", "b"), named("c", "b"))
    with pytest.raises(ManifestError, match="'c' would come from two rows"):
        join_references(named("a", "b"), named("c", "d", "c"))


# --- remove ---


def test_remove_undoes_add(bundle, cohort):
    original = (bundle / "references.npz").read_bytes()
    networks = {name: data for name, data in content(bundle).items() if name.endswith(".onnx")}
    n = add_references(bundle, cohort).added
    change = remove_references(bundle, ["p0", "p1"])
    assert (change.added, change.removed, change.total, change.emptied) == (0, n, 60, ())
    assert (bundle / "references.npz").read_bytes() == original
    assert content(bundle).items() >= networks.items()


def test_what_is_asked_for_narrows():
    ids = ["a/m/1/0", "a/m/1/1", "a/m/12/0", "b/m/1/0"]
    patients = np.array(["p", "p", "p", "q"])
    sites = np.array([SITE_INDEX[key] for key in ("thalamus", "thalamus", "brainstem", "thalamus")])
    known = References(np.zeros((4, 1), np.float16), sites, np.array(ids), patients)
    bundle = SimpleNamespace(references=known, sites=SITES)

    def matched(**asked):
        return np.flatnonzero(match_references(bundle, **asked)).tolist()

    assert matched() == [0, 1, 2, 3]
    assert matched(patients=["p"]) == [0, 1, 2]
    assert matched(patients=["p", "q"]) == [0, 1, 2, 3]
    assert matched(site="thalamus") == [0, 1, 3]
    assert matched(patients=["p"], site="thalamus") == [0, 1]
    assert matched(ids=["a/m/1"]) == [0, 1]  # a region; not that of value 12
    assert matched(ids=["a/m/1/1", "b"]) == [1, 3]
    assert matched(ids=["a"], patients=["q"]) == []
    assert matched(site="cerebellum") == []
    for asked in ({"ids": ["a/m/"]}, {"ids": ["a/m/1/2"]}, {"patients": ["P"]}, {"site": "Thalamus"}):
        with pytest.raises(InputError, match=r"did you mean|expected one of"):
            matched(**asked)


def test_a_site_without_references_is_said_and_never_the_answer(bundle, cohort):
    change = remove_references(bundle, site="brainstem")
    assert change.emptied == ("brainstem",) and (change.removed, change.total) == (4, 56)
    assert "brainstem has no reference left" in change.text()
    volume = read_volume(cohort / "scan0.nii.gz")
    for finding in Labeler.load(bundle).label(volume, read_rois(cohort / "roi0.nii.gz", volume)):
        assert finding.scores["brainstem"] == 0 and finding.site != "brainstem"
    assert remove_references(bundle, site="thalamus").emptied == ("thalamus",)  # not told again


def test_some_must_be_left(bundle):
    before = content(bundle)
    with pytest.raises(BundleError, match="all 60 references"):
        remove_references(bundle, [f"head_{n}" for n in range(4)])
    with pytest.raises(InputError, match="name a patient, an id or a site"):
        remove_references(bundle)
    # case_04 is one of head_0
    with pytest.raises(InputError, match=r"no reference matches .* together; nothing was removed"):
        remove_references(bundle, ["head_1"], ["case_04"])
    assert content(bundle) == before


# --- what is written ---


def test_card_and_version_tell_of_all_changes(bundle, cohort):
    n = add_references(bundle, cohort).added
    first = read_bundle(bundle)
    remove_references(bundle, ids=["case_00", "case_01"])
    second = read_bundle(bundle)
    assert second.description["references"] == {"added": n, "removed": 2}
    assert second.description["n_references"] == len(second.references) == 60 + n - 2
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert card == model_card(second.description)
    assert f"Since the training, {n} references were added and 2 removed" in card
    assert "Since the training" not in (small_bundle() / "README.md").read_text(encoding="utf-8")
    # One version for each set of references, each with the training's before it.
    original = read_bundle(small_bundle())
    assert len({original.version, first.version, second.version}) == 3
    assert {v.partition("+")[0] for v in (first.version, second.version)} == {original.version}
    for same in ("training", "recipe", "networks", "views", "created_by"):
        assert second.description[same] == original.description[same]


def test_out_leaves_the_original(bundle, cohort, tmp_path):
    before = content(bundle)
    out = tmp_path / "new"
    assert add_references(bundle, cohort, out).path == out
    assert content(bundle) == before
    assert len(read_bundle(out).references) == 60 + len(expected_ids(cohort))
    remove_references(out, ["p0"], out=bundle)  # and a bundle is replaced, as in training
    assert set(read_bundle(bundle).references.patients.tolist()) == {*(f"head_{n}" for n in range(4)), "p1"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "new"]


def test_a_link_keeps_pointing_where_it_did(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    remove_references(link, site="brainstem")
    assert link.is_symlink() and len(read_bundle(bundle).references) == 56


def test_an_interrupted_write_leaves_the_bundle(bundle, tmp_path, monkeypatch):
    before = content(bundle)
    rename = Path.replace

    def stop(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        remove_references(bundle, site="brainstem")
    assert content(bundle) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_two_changes_at_a_time_do_not_undo_each_other(bundle, cohort, monkeypatch):
    embed = module.embed_slices

    def slow(*args):
        remove_references(bundle, site="brainstem")  # somebody else, meanwhile
        return embed(*args)

    monkeypatch.setattr(module, "embed_slices", slow)
    with pytest.raises(BundleError, match="changed meanwhile"):
        add_references(bundle, cohort)
    assert len(read_bundle(bundle).references) == 56


@pytest.mark.parametrize("n, width", [(0, 12), (3, 11)])
def test_references_that_do_not_fit_are_refused(bundle, n, width):
    opened = read_bundle(bundle)
    fewer = References(
        np.zeros((n, width), np.float16), np.zeros(n, int), np.array(["a"] * n, str), np.array(["b"] * n, str)
    )
    with pytest.raises(ValueError, match="references: expected"):
        replace_references(opened, fewer, added=0, removed=0)


def test_the_shipped_bundle_is_never_changed(cohort, tmp_path):
    try:
        shipped = read_bundle()
    except BundleError:
        pytest.skip("no bundle is shipped yet")
    before = content(shipped.path)
    (tmp_path / "link").symlink_to(shipped.path)
    patient = str(shipped.references.patients[0])
    for name, out in (
        ("shipped", None),
        (shipped.path, None),
        (tmp_path / "link", None),
        ("shipped", shipped.path),
    ):
        with pytest.raises(BundleError, match="give --out NEW_BUNDLE"):
            add_references(name, cohort, out)
        with pytest.raises(BundleError, match="give --out NEW_BUNDLE"):
            remove_references(name, [patient], out=out)
    change = remove_references("shipped", [patient], out=tmp_path / "new")
    assert change.removed == (shipped.references.patients == patient).sum()
    assert patient not in read_bundle(tmp_path / "new").references.patients
    assert content(shipped.path) == before


# --- pictures ---


@pytest.fixture
def rendered(cohort, tmp_path):
    """The same cohort, as if its scans had been rendered of the heads p0 and p1."""
    folder = shutil.copytree(cohort, tmp_path / "rendered", ignore=shutil.ignore_patterns(".cache"))
    settings = {"heads": ["p0.nii.gz", "p1.nii.gz"], "seed": 0, "sites": "balanced"}
    (folder / "cohort.json").write_text(json.dumps(settings))
    return folder


def pictured(folder):
    return sorted(read_bundle(folder).pictures)


def check_pictures(bundle, cohort):
    """The outline of every added reference lies where the files say its region is."""
    rows = read_manifest(cohort)
    for n, slices in areas(cohort).items():
        mask = np.asarray(nib.load(rows[n].roi).dataobj) == rows[n].value
        for k in slices:
            outline = bundle.picture(f"scan{n // 4}/roi{n // 4}/{n % 4 + 1}/{k}") == OUTLINE
            middle = np.array(np.nonzero(outline)).mean(axis=1)
            i, j = np.argwhere(mask[:, :, k]).mean(axis=0)
            # 3.5 mm voxels in a grid of 64, i to the right and j to the front; the head is its middle.
            expected = [-(j - 31.5) * 3.5, -(i - 31.5) * 3.5]
            # Regions are 50 mm apart; a picture moves, here up to 22 mm, to show what surrounds one far out.
            np.testing.assert_allclose((middle - (SIZE_PX - 1) / 2) * FIELD_MM / SIZE_PX, expected, atol=24)


@pytest.mark.slow
def test_rendered_scans_are_shown_and_patients_only_if_asked_for(bundle, cohort, rendered, tmp_path):
    add_references(bundle, cohort, tmp_path / "plain")
    assert not (tmp_path / "plain" / "pictures.npz").exists()
    for folder, asked, whose in ((rendered, False, "rendered"), (cohort, True, "patients")):
        out = add_references(bundle, folder, tmp_path / f"of_{whose}", pictures=asked).path
        assert pictured(out) == sorted(expected_ids(cohort))
        counts = {"rendered": 0, "patients": 0} | {whose: len(expected_ids(cohort))}
        assert read_bundle(out).description["pictures"] == counts
        assert ("patients' scans" in (out / "README.md").read_text(encoding="utf-8")) == asked
        check_pictures(read_bundle(out), cohort)


def test_pictures_stay_with_the_references_that_stay(bundle, cohort, rendered, tmp_path):
    add_references(bundle, rendered)
    before = read_bundle(bundle).pictures
    more = tmp_path / "more"  # a patient's scan joins; its references have none
    more.mkdir()
    row = next(csv.DictReader((cohort / "manifest.csv").read_text().splitlines()))
    for column in ("scan", "roi"):
        shutil.copy(cohort / row[column], more / f"new_{row[column]}")
        row[column] = f"new_{row[column]}"
    write_manifest(more, [row])
    add_references(bundle, more)
    assert any(name.startswith("new_scan0/") for name in read_bundle(bundle).references.ids)
    assert read_bundle(bundle).pictures == before
    remove_references(bundle, ids=["scan0/roi0/2"])
    left = {name: picture for name, picture in before.items() if not name.startswith("scan0/roi0/2/")}
    assert 0 < len(left) < len(before) and read_bundle(bundle).pictures == left
    text = format_references_text(read_bundle(bundle))
    assert f"{len(left)} have pictures, 0 of them of patients' scans." in text
    remove_references(bundle, ["p0", "p1"])
    opened = read_bundle(bundle)
    assert not (bundle / "pictures.npz").exists() and "pictures.npz" not in opened.description["files"]
    assert "no picture of any scan" in (bundle / "README.md").read_text(encoding="utf-8")


def test_damaged_pictures_are_told_and_nothing_is_written(bundle, rendered):
    add_references(bundle, rendered)
    (bundle / "pictures.npz").write_bytes(b"")
    before = content(bundle)
    with pytest.raises(BundleError, match=r"pictures\.npz was changed"):
        remove_references(bundle, site="thalamus")
    assert content(bundle) == before


def test_views_without_an_outline_give_no_pictures(bundle, rendered, monkeypatch):
    opened = read_bundle(bundle)
    plain = replace(opened, spec=replace(opened.spec, channels=("brain",)))
    monkeypatch.setattr(module, "read_bundle", lambda _: plain)
    monkeypatch.setattr(module, "embed_slices", lambda *_: pytest.fail("the work began"))
    with pytest.raises(InputError, match="do not show the outline"):
        add_references(bundle, rendered, pictures=True)
    monkeypatch.setattr(module, "embed_slices", lambda *_: take_rows(opened.references, slice(0)))
    add_references(bundle, rendered)
    assert not (bundle / "pictures.npz").exists()


# --- the command line ---


def test_list_counts_and_names(bundle, cohort, capsys):
    add_references(bundle, cohort)
    opened = read_bundle(bundle)
    by_site = {key: [] for key in SITE_KEYS}
    for name, index, patient in zip(
        opened.references.ids, opened.references.sites, opened.references.patients, strict=True
    ):
        by_site[SITE_KEYS[index]].append((str(name), str(patient)))

    lines = format_references_text(opened).splitlines()
    assert f"{len(opened.references)} references, 6 patients" in lines[0]
    assert [line.split() for line in lines[3:18]] == [
        [key, str(len(of_site)), str(len({patient for _, patient in of_site}))]
        for key, of_site in by_site.items()
    ]
    assert f"{len(opened.references) - 60} were added and 0 removed" in lines[18]
    lines = format_references_text(opened, "parietal_region").splitlines()
    assert [tuple(line.split()) for line in lines[3:]] == by_site["parietal_region"]

    rows = list(csv.DictReader(io.StringIO(format_references_csv(opened))))
    assert [row["id"] for row in rows] == opened.references.ids.tolist()
    assert main(["references", "list", str(bundle), "--site", "thalamus", "--csv", "-"]) == 0
    told = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["id"], row["patient"]) for row in told] == by_site["thalamus"]
    assert {row["site"] for row in told} == {"thalamus"}


@pytest.mark.slow
def test_the_commands_need_no_training_packages(bundle, cohort):
    commands = [
        ["add", str(bundle), str(cohort), "--pictures"],
        ["remove", str(bundle), "--patient", "p0", "--id", "scan0/roi0/1", "--site", "frontal_region"],
        ["list", str(bundle)],
    ]
    code = f"""
import sys
sys.modules.update(dict.fromkeys(("torch", "sklearn", "joblib", "onnx")))
from situs.cli import main
sys.exit(max(main(["references", *args]) for args in {commands!r}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    n, gone = len(expected_ids(cohort)), len(areas(cohort)[0])
    assert f"{n} added, {60 + n} references in all" in run.stdout
    assert f"{gone} removed, {60 + n - gone} references in all" in run.stdout
    assert f"{n - gone} have pictures, {n - gone} of them of patients' scans." in run.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["add", "absent", "cohort"], ["absent: no such bundle"]),
        (["add", "mine", "absent"], ["manifest.csv", "cannot be read"]),
        (["add", "mine", "empty"], ["has no rows"]),
        (["add", "mine", "wrong"], ["no site 'thalamu'; did you mean 'thalamus'?"]),
        (["add", "mine", "cohort", "--max-slices", "0"], ["--max-slices"]),
        (["add", "mine", "cohort", "--out", "other"], ["other: not overwritten"]),
        (["add", "mine", "cohort", "--out", "no/b"], ["no/b", "no folder"]),
        (["add", "damaged", "cohort"], ["references.npz was changed"]),
        (["remove", "mine"], ["name a patient, an id or a site"]),
        (["remove", "mine", "--patient", "head_9"], ["no reference has the patient 'head_9'; did you mean"]),
        (["remove", "mine", "--id", "case_99"], ["no reference has the id 'case_99'; did you mean"]),
        (["remove", "mine", "--id", "?"], ["expected one of case_00", "or 40 more"]),
        (["remove", "mine", "--site", "thalamos"], ["did you mean 'thalamus'?"]),
        (["remove", "mine", "--patient", "head_1", "--out", "other/file"], ["not overwritten", "a file"]),
        (["list", "mine", "--site", "pons"], ["no site 'pons'"]),
        (["list", "absent"], ["absent: no such bundle"]),
        (["list", "mine", "--csv", "mine/references.npz"], ["overwrite"]),
        (["lits", "mine"], ["lits", "list"]),
        ([], ["command"]),
    ],
)
def test_what_is_wrong_is_one_line(bundle, cohort, tmp_path, capsys, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cohort").symlink_to(cohort)
    for name, rows in (("empty", []), ("wrong", [{"scan": "a", "roi": "a", "value": 1, "site": "thalamu"}])):
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, [{**row, "patient": "p"} for row in rows])
    shutil.copytree(bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "references.npz").write_bytes(b"")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["references", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("situs: error: ") and err.count("\n") == 1
    for word in words:
        assert word in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_place_that_cannot_be_written_is_refused_before_the_work(bundle, cohort, monkeypatch):
    def refuse(folder):
        if folder == bundle.parent:
            raise OutputError(f"{folder}: cannot be written to")

    monkeypatch.setattr("situs.bundle.folder.check_folder", refuse)
    monkeypatch.setattr(module, "open_slices", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(OutputError, match="cannot be written to"):
        add_references(bundle, cohort)
