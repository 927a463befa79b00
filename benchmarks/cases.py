"""Real cases with the readers' answers: reading them, asking about them, counting who is right.

Several scripts use it: `real.py` asks the bundle, `registration.py` and `dense.py` ask something else too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from situs.io import read_rois, read_volume
from situs.labeler import Labeler
from situs.volume import Roi, Volume, union_mask

TURN_DEG = 45.0
CONSTANT_SITE, CONSTANT_SIDE = "gangliocapsular_region", "left"


@dataclass(frozen=True)
class Case:
    """One region and the readers' answer.

    Attributes:
        scan: The file of the scan, relative to the folder of the data.
        roi: The file of the mask.
        value: The value of the mask.
        site: The readers' site; empty where they disagreed.
        acceptable: The keys of all sites that count as right.
        side: The readers' side.
        kind: What sort of place or lesion it is.
    """

    scan: str
    roi: str
    value: int
    site: str
    acceptable: tuple[str, ...]
    side: str
    kind: str


@dataclass(frozen=True)
class Answer:
    """The output for a case.

    Attributes:
        site: The key of the site; None where there was no answer.
        side: The side.
        score: The relation score of the site.
        site_set: The sites that it may be; empty from a bundle without calibration.
        sure: Whether the bundle is sure.
    """

    site: str | None
    side: str | None
    score: float
    site_set: tuple[str, ...] = ()
    sure: bool = False

    def is_right(self, case: Case) -> bool:
        """Whether the site is acceptable."""
        return self.site in case.acceptable

    def covers(self, case: Case) -> bool:
        """Whether the site set holds an acceptable site."""
        return not set(self.site_set).isdisjoint(case.acceptable)


NO_ANSWER = Answer(None, None, 0.0)


def read_cases(path: Path) -> list[Case]:
    """The rows of landmarks.csv, haemorrhages.csv (whose masks have the one value 1) or lesions.csv.

    The files of lesions.csv are named relative to the folder ``lesions``.
    """
    folder = "lesions/" if path.stem == "lesions" else ""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Case(
                scan=folder + row["scan"],
                roi=folder + row["roi"],
                value=int(row.get("value") or 1),
                site=row["site"],
                acceptable=tuple(row["acceptable"].split(";")),
                side=row["side"],
                kind=row.get("kind") or row.get("set") or "haemorrhage",
            )
            for row in csv.DictReader(file)
        ]


def answer_cases(
    labeler: Labeler,
    data: Path,
    cases: Sequence[Case],
    scan: str | None = None,
    turn_seed: int | None = None,
    together: bool = False,
) -> list[Answer]:
    """The bundle's answers, in the order of `cases`; each scan is read once.

    Args:
        labeler: Answers.
        data: The folder of the files.
        cases: What is asked.
        scan: A scan to use in place of the cases' own; it must lie in the same patient space.
        turn_seed: Turn the scans by random angles of at most `TURN_DEG`; None for as they are.
        together: Whether all values of a mask are filled while one is asked about; else that one alone.
    """
    answers: dict[Case, Answer] = {}
    rng = np.random.default_rng(turn_seed)
    for name, roi_name in dict.fromkeys((case.scan, case.roi) for case in cases):
        volume = read_volume(data / (scan or name))
        rois = read_rois(data / roi_name, volume)
        if turn_seed is not None:
            volume, rois = turn(volume, rois, float(rng.uniform(-TURN_DEG, TURN_DEG)))
        asked = [case for case in cases if (case.scan, case.roi) == (name, roi_name)]
        values = {case.value for case in asked}
        groups = [rois] if together else [[roi] for roi in rois if roi.value in values]
        by_value: dict[int, Answer] = {}
        for group in groups:
            by_value |= ask(labeler, volume, group)
        answers |= {case: by_value.get(case.value, NO_ANSWER) for case in asked}
    return [answers[case] for case in cases]


def ask(labeler: Labeler, volume: Volume, rois: Sequence[Roi]) -> dict[int, Answer]:
    """The answer for the largest part of each region, by its value, while all of them are filled."""
    return {
        finding.roi_value: Answer(
            finding.site,
            finding.side,
            finding.score or 0.0,
            finding.site_set,
            finding.sure,
        )
        for finding in labeler.label(volume, rois)
        if finding.component == 1
    }


def turn(volume: Volume, rois: Iterable[Roi], degrees: float) -> tuple[Volume, list[Roi]]:
    """The patient turned about the slice axis: other values on the same grid."""
    hu = np.asarray(volume.hu)
    low = float(hu.min())
    turned = ndimage.rotate(hu.astype(np.float32), degrees, (0, 1), reshape=False, order=1, cval=low)
    turned_rois = []
    for roi in rois:
        mask, slices = np.zeros(hu.shape, dtype=bool), list(roi.areas_px)
        marked = union_mask([roi], volume.geometry)[:, :, slices].astype(np.float32)
        mask[:, :, slices] = ndimage.rotate(marked, degrees, (0, 1), reshape=False, order=1) > 0.5
        if mask.any():
            turned_rois.append(Roi.from_mask(mask, volume.geometry, roi.value, roi.name))
    return replace(volume, hu=np.rint(turned).astype(np.int16)), turned_rois


def summarize(cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, Any]:
    """How many answers are right: by site, by kind, in all, and of a constant answer."""
    constant = [Answer(CONSTANT_SITE, CONSTANT_SIDE, 1.0)] * len(cases)
    return {
        **_accuracies(cases, answers),
        "kinds": _by_kind(cases, answers),
        "certainty": _certainty(cases, answers),
        "constant": _accuracies(cases, constant),
    }


def count(outcomes: Iterable[bool]) -> dict[str, Any]:
    """How many outcomes are right, of how many."""
    right = list(outcomes)
    return {"right": sum(right), "n": len(right), "accuracy": sum(right) / max(1, len(right))}


def count_by(outcomes: Iterable[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    """The counts of each group, in the order in which they come; the group of no name is "disputed"."""
    groups: dict[str, list[bool]] = {}
    for group, right in outcomes:
        groups.setdefault(group or "disputed", []).append(right)
    return {group: count(right) for group, right in groups.items()}


def of(counts: dict[str, Any]) -> str:
    """Counts in words."""
    return f"{counts['right']} of {counts['n']}"


def cells(counts: dict[str, Any]) -> list[str]:
    """Counts as three cells of a table."""
    return [str(counts["right"]), str(counts["n"]), f"{counts['accuracy']:.3f}"]


def _accuracies(cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, Any]:
    pairs = list(zip(cases, answers, strict=True))
    sites = count_by((case.site, answer.is_right(case)) for case, answer in pairs)
    return {
        "sites": sites,
        "mean_over_sites": float(np.mean([counts["accuracy"] for counts in sites.values()])),
        "acceptable": count(answer.is_right(case) for case, answer in pairs),
        "side": count(answer.side == case.side for case, answer in pairs),
    }


def _by_kind(cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Of each kind: sites, sides and site sets that are right, and answers that are sure."""
    groups: dict[str, list[tuple[Case, Answer]]] = {}
    for case, answer in zip(cases, answers, strict=True):
        groups.setdefault(case.kind, []).append((case, answer))
    return {
        kind: {
            "acceptable": count(a.is_right(c) for c, a in pairs),
            "side": count(a.side == c.side for c, a in pairs),
            "site set": count(a.covers(c) for c, a in pairs),
            "sure": count(a.sure for _, a in pairs),
        }
        for kind, pairs in groups.items()
    }


def _certainty(cases: Sequence[Case], answers: Sequence[Answer]) -> dict[str, Any] | None:
    """How the site sets do; None from a bundle without calibration."""
    pairs = [(case, answer) for case, answer in zip(cases, answers, strict=True) if answer.site_set]
    if not pairs:
        return None
    return {
        "covered": count(a.covers(c) for c, a in pairs),
        "mean_size": float(np.mean([len(a.site_set) for _, a in pairs])),
        "sure": count(a.sure for _, a in pairs),
        "right_if_sure": count(a.is_right(c) for c, a in pairs if a.sure),
        "right_if_not": count(a.is_right(c) for c, a in pairs if not a.sure),
    }
