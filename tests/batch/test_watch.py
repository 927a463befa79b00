"""A watched batch: what arrives whole is labelled once, whatever happens between."""

import csv
import os

import nibabel as nib
import pytest
from phantoms import small_case
from phantoms.small_bundle import small_bundle

from situs.batch import label_batch
from situs.batch.parts import part_path, read_part
from situs.batch.watch import Arrivals
from situs.errors import InputError, OutputError


class Room:
    """A folder with scans and masks, and a watch over it."""

    def __init__(self, folder):
        self.folder, self.patterns = folder, (f"{folder}/s_*", f"{folder}/m_*")
        self.open()

    def open(self):
        self.arrivals = Arrivals(self.patterns, self.folder / "manifest.csv")

    def put(self, name, text="x"):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def look(self, failed=()):
        return self.arrivals.look(lambda number: number in failed)

    @property
    def ids(self):
        path = self.folder / "manifest.csv"
        return [row["id"] for row in csv.DictReader(path.read_text().splitlines())] if path.exists() else []


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def test_what_stands_still_between_two_looks_is_whole(room):
    room.put("s_a")
    room.put("m_a")
    assert not room.look() and room.ids == []
    room.put("s_a", "longer")
    room.put("s_b")
    assert not room.look() and room.ids == []
    assert room.look() and room.ids == ["a"]
    room.put("m_b")
    assert not room.look()
    assert room.look() and room.ids == ["a", "b"]
    assert not room.look()


def test_a_row_keeps_its_number_also_after_a_restart(room):
    for name in ("s_b", "m_b"):
        room.put(name)
    assert [room.look(), room.look()] == [False, True]
    room.open()
    for name in ("s_a", "m_a"):
        room.put(name)
    assert [room.look(), room.look()] == [False, True]
    assert room.ids == ["b", "a"] and len(room.arrivals) == 2


def test_an_empty_file_or_folder_and_one_without_a_partner_are_waited_for(room):
    room.put("s_a")
    room.put("m_a", "")
    room.put("m_b")
    (room.folder / "s_b").mkdir()
    assert not any(room.look() for _ in range(3))
    room.put("m_a")
    room.put("s_b/1.dcm")
    assert [room.look(), room.look()] == [False, True]
    assert room.ids == ["a", "b"]


def test_a_folder_is_whole_when_no_file_in_it_comes_or_grows(room):
    room.put("m_a")
    room.put("s_a/1.dcm")
    assert not room.look()
    room.put("s_a/2.dcm")
    assert not room.look()
    room.put("s_a/2.dcm", "longer")
    assert [room.look(), room.look()] == [False, True]


def test_of_what_changed_later_only_the_failures_come_back(room):
    for name in ("s_a", "m_a", "s_b", "m_b"):
        room.put(name)
    assert [room.look(), room.look()] == [False, True]
    for name in ("s_a", "s_b"):
        room.put(name, "changed")
    assert not room.look(failed=[2])
    asked = []
    assert room.arrivals.look(lambda number: (asked.append(number), number == 2)[1])
    assert asked == [1, 2] and room.ids == ["a", "b"]
    assert not room.look(failed=[1, 2])


def test_a_name_that_is_no_utf8_does_not_come_again_and_again(room):
    for name in (b"s_\xff", b"m_\xff"):
        room.put(os.fsdecode(name))
    assert [room.look() for _ in range(4)] == [False, True, False, False]


@pytest.fixture
def watch(tmp_path):
    """Watch a folder: each pause is the turn of the next of some functions, and then it ends."""

    def put(name, data):
        nib.save(nib.Nifti1Image(data, small_case.AFFINE), tmp_path / name)

    def run(*turns, every=0.0, **options):
        left = iter(turns)
        ended = []

        def progress(stage, done, total, message=""):
            if message.startswith("waiting"):
                turn = next(left, lambda: ended.append(1))
                turn()

        patterns = (f"{tmp_path}/s_*.nii", f"{tmp_path}/m_*.nii")
        return label_batch(
            patterns,
            tmp_path / "out",
            str(small_bundle()),
            progress=progress,
            stop=lambda: bool(ended),
            every=every,
            **options,
        )

    run.put, run.out = put, tmp_path / "out"
    return run


def test_scans_that_arrive_are_rows_and_the_results_are_written(watch):
    def arrive():
        watch.put("s_a.nii", small_case.head_hu())
        watch.put("m_a.nii", small_case.lesion_mask())

    def arrive_cut():
        watch.put("m_0.nii", small_case.lesion_mask())
        (watch.out.parent / "s_0.nii").write_bytes((watch.out.parent / "s_a.nii").read_bytes()[:5000])

    def arrive_whole():
        (watch.out.parent / "s_0.nii").write_bytes((watch.out.parent / "s_a.nii").read_bytes())

    def nothing():
        pass

    summary = watch(nothing, arrive, nothing, arrive_cut, nothing)
    assert (summary.scans, summary.failed) == (2, 1)
    assert "truncated" in read_part(watch.out, 2).error
    before = part_path(watch.out, 1).stat().st_mtime_ns
    summary = watch(arrive_whole, nothing, nothing, page=True)
    assert (summary.scans, summary.failed, summary.lesions) == (2, 0, 6)
    assert part_path(watch.out, 1).stat().st_mtime_ns == before
    rows = list(csv.DictReader((watch.out / "findings.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["a"] * 3 + ["0"] * 3
    assert (watch.out / "summary.html").exists()


def test_a_watched_folder_belongs_to_a_watch_and_patterns_are_checked_first(watch, tmp_path):
    assert watch().scans == 0
    with pytest.raises(OutputError, match="other settings"):
        watch.put("s_a.nii", small_case.head_hu())
        watch(every=None)
    with pytest.raises(InputError, match=r"expected one '\*'"):
        label_batch(("a", "b*"), tmp_path / "new", str(small_bundle()), every=1.0)
    assert not (tmp_path / "new").exists()
