"""From a scan and its regions of interest to one finding per lesion; no torch, no state between calls.

Each axial slice of a lesion is one example, as in the paper; the answers of a lesion's slices are joined by
area. Examples are looked at slice by slice, so that what the lesions of a slice share is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS
from situs.bundle import Bundle, read_bundle
from situs.errors import RoiError
from situs.finding import Finding, Reference
from situs.geometry import Geometry
from situs.midplane import Midplane
from situs.neighbors import Neighbors, nearest_distances, nearest_first
from situs.plausibility import gray_levels, lesion_doubts, scan_doubts
from situs.progress import Progress, silent
from situs.records import join_rows, take_rows
from situs.runtime import Embedded, Runtime, relate_to_nearest
from situs.side import side_of_lesion
from situs.views import LEAST_TURN_DEG, Views, extract_views
from situs.volume import OutsideRoi, Roi, Volume, choose_slices, split_lesions, union_mask

__all__ = ["MAX_SLICES", "Labeler"]

# More slices of one lesion add time and no information: neighbouring slices look alike.
MAX_SLICES = 12
# A lesion with fewer pixels on its largest slice has no shape, and a place only to the millimetre.
MIN_PIXELS = 4
N_NEAREST = 5
N_COMPARISON = (3, 2)  # references of the named site, and of the one with the next highest score
# So many examples are looked at first, to see how the head lies.
_FIRST_EXAMPLES = 3
# Examples that are looked at together; bounds the memory, whatever the number of lesions.
_BATCH = 48

_NO_MIDLINE = "The side rests on the head's symmetry alone: this bundle does not paint the midline."
_OUTSIDE = "It lies outside the scan."
_TOO_SMALL = f"Too small to be judged: fewer than {MIN_PIXELS} pixels on its largest slice."


class Labeler:
    """Labels the lesions of a scan with a bundle.

    Attributes:
        bundle: The bundle that answers.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self._runtime = runtime

    @classmethod
    def load(cls, bundle: str | Path | None = None, threads: int = 1) -> Labeler:
        """A labeler from a bundle's folder.

        Args:
            bundle: The folder; None for the shipped bundle.
            threads: See `Runtime`.

        Raises:
            BundleError: if the bundle cannot be used
        """
        found = read_bundle(bundle)
        return cls(found, Runtime(found, threads))

    def label(
        self,
        volume: Volume,
        rois: Sequence[Roi | OutsideRoi],
        progress: Progress = silent,
        patient: str = "",
    ) -> list[Finding]:
        """Label every lesion of every region.

        Args:
            volume: The scan.
            rois: Regions on its grid; every connected part of one is a lesion. And those outside it.
            progress: Its stage is ``slices``: those of all lesions.
            patient: Whose scan it is, as the bundle's references name patients; the patient's own references
                are left out. Empty for somebody who is not among them.

        Returns:
            The findings, in the order of `rois` and then by size. Lesions outside the scan come last. They
            have no site and no scores, and neither have lesions that are too small to be judged.

        Raises:
            RoiError: if a region lies on another grid than the scan
        """
        regions = [roi for roi in rois if isinstance(roi, Roi)]
        for roi in regions:
            if roi.geometry.shape != volume.geometry.shape:
                raise RoiError(
                    f"rois: value {roi.value} lies on a grid of {roi.geometry.shape} voxels, the scan has "
                    f"{volume.geometry.shape}; read it with read_rois and this scan"
                )
        lesions = [lesion for roi in regions for lesion in split_lesions(roi)]
        outside = [roi for roi in rois if isinstance(roi, OutsideRoi)]
        if not lesions:
            return self._outside(volume, outside, lesions)
        examples = _examples(lesions)
        scan = _Scan(volume, union_mask(regions, volume.geometry))
        pose, looks = self._find_pose(scan, examples)
        of_lesion: dict[Roi, list[_Answer]] = {lesion: [] for lesion in lesions}
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            for answer in self._answer(batch, self._look(scan, batch, pose.turn_deg, looks), patient):
                of_lesion[answer.example.lesion].append(answer)
            progress("slices", start + len(batch), len(examples))
        levels = gray_levels(volume)
        doubts = (*volume.doubts, *scan_doubts(volume, levels))
        findings = []
        for lesion, answers in of_lesion.items():
            own = (*lesion.doubts, *lesion_doubts(volume, lesion, levels))
            findings.append(self._finding(lesion, answers, pose, (*doubts, *own)))
        return findings + self._outside(volume, outside, lesions)

    def _outside(
        self, volume: Volume, regions: Sequence[OutsideRoi], lesions: Sequence[Roi]
    ) -> list[Finding]:
        """The findings of what lies outside the scan, numbered after the other lesions of its value."""
        return [
            Finding(
                roi_value=region.value,
                roi_name=region.name,
                component=number,
                volume_ml=volume_ml,
                slices=(),
                largest_slice=None,
                site=None,
                side=None,
                doubts=(_OUTSIDE, *volume.doubts, *region.doubts),
                site_set=(),
                scores={},
                shares={},
                nearest=(),
                comparison=(),
                notes=region.notes,
                bundle_name=self.bundle.name,
                bundle_version=self.bundle.version,
            )
            for region in regions
            for number, volume_ml in enumerate(
                region.volumes_ml, start=1 + sum(lesion.value == region.value for lesion in lesions)
            )
        ]

    def _find_pose(self, scan: _Scan, examples: Sequence[_Example]) -> tuple[_Pose, dict[_Example, _Look]]:
        """How the head lies, searched for near what is painted on some of the examples, from bottom to top.

        Returns:
            The pose, and the looks at these examples, unless they must be looked at again upright.
        """
        rows = np.linspace(0, len(examples) - 1, min(len(examples), _FIRST_EXAMPLES)).astype(int)
        first = [examples[row] for row in rows]
        looks = self._look(scan, first, 0.0, {})
        geometry = scan.volume.geometry
        painted = [look.midline for look in looks.values() if look.painted]
        near = Midplane.median(painted, geometry) if painted else None
        midplane = Midplane.by_symmetry(scan.volume, near)
        lies = midplane or near
        turn = 0.0 if lies is None else geometry.turn_deg(lies.left)
        if self.bundle.spec.upright and abs(turn) >= LEAST_TURN_DEG:
            return _Pose(midplane, turn), {}
        return _Pose(midplane), looks

    def _look(
        self, scan: _Scan, examples: Sequence[_Example], turn_deg: float, known: Mapping[_Example, _Look]
    ) -> dict[_Example, _Look]:
        """What BaseNet makes of examples, ascending by slice, unless it is `known` already."""
        new = [example for example in examples if example not in known]
        made: dict[_Example, _Look] = {}
        if new:
            geometry, views = scan.volume.geometry, []
            for k, group in groupby(new, key=lambda example: example.k):
                targets = [example.lesion for example in group]
                views += extract_views(scan.volume, k, targets, scan.fill, self.bundle.spec, turn_deg)
            embedded = self._runtime.embed(
                np.stack([view.global_view for view in views]), np.stack([view.local_view for view in views])
            )
            for n, (example, view) in enumerate(zip(new, views, strict=True)):
                made[example] = _Look.of(take_rows(embedded, slice(n, n + 1)), view, geometry)
        return {example: made[example] if example in made else known[example] for example in examples}

    def _answer(
        self, examples: Sequence[_Example], looks: Mapping[_Example, _Look], patient: str
    ) -> list[_Answer]:
        """Examples related to the references of every site."""
        embeddings = np.concatenate([looks[example].embedded.embedding for example in examples])
        patients = [patient] * len(examples)
        neighbors, scores = relate_to_nearest(self._runtime, self.bundle, embeddings, patients)
        return [
            _Answer(example, looks[example], take_rows(neighbors, slice(n, n + 1)), scores[n])
            for n, example in enumerate(examples)
        ]

    def _finding(
        self, lesion: Roi, answers: Sequence[_Answer], pose: _Pose, doubts: tuple[str, ...]
    ) -> Finding:
        """The finding for a lesion from the answers of its slices; without any it is too small."""
        site, scores, shares = None, {}, {}
        site_set: tuple[str, ...] = ()
        nearest: list[Reference] = []
        comparison: list[Reference] = []
        notes = (*lesion.notes, *pose.notes)
        looks = {answer.example.k: answer.look for answer in answers}
        weights = {answer.example.k: answer.example.weight for answer in answers} or lesion.areas_px
        planes = {k: _planes(k, looks.get(k), pose.midplane, lesion.geometry) for k in weights}
        if answers:
            joined = _Joined.of(answers)
            scores = _by_site(joined.scores)
            ranked = sorted(scores, key=lambda key: -scores[key])
            site = ranked[0]
            nearest = nearest_first(self.bundle.references, joined.neighbors)
            for key, most in zip(ranked, N_COMPARISON, strict=False):
                comparison += [reference for reference in nearest if reference.site == key][:most]
            shares = {} if joined.shares is None else _by_site(joined.shares)
            if self.bundle.calibration is not None:
                judgement = self.bundle.calibration.judge(joined.scores, joined.distance, joined.inside)
                site_set, doubts = judgement.site_set, (*judgement.reasons, *doubts)
            if not answers[0].look.painted:
                notes = (*notes, _NO_MIDLINE)
        else:
            doubts = (_TOO_SMALL, *doubts)
        return Finding(
            roi_value=lesion.value,
            roi_name=lesion.name,
            component=lesion.component,
            volume_ml=lesion.volume_ml,
            slices=tuple(lesion.areas_px),
            largest_slice=lesion.largest_slice,
            site=site,
            side=side_of_lesion(lesion, weights, planes),
            doubts=doubts,
            site_set=site_set,
            scores=scores,
            shares=shares,
            nearest=_nearest_few(nearest, site),
            comparison=tuple(comparison),
            notes=notes,
            bundle_name=self.bundle.name,
            bundle_version=self.bundle.version,
        )


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan and what is marked on it, (ni, nj, nk) bool."""

    volume: Volume
    fill: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Pose:
    """How a head lies.

    Attributes:
        midplane: Of the head; None if none was found.
        turn_deg: By how much it is turned in the views that are looked at, clockwise.
    """

    midplane: Midplane | None
    turn_deg: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was corrected, one sentence each."""
        if not self.turn_deg:
            return ()
        way = "clockwise" if self.turn_deg > 0 else "anticlockwise"
        turned = f"turned {abs(self.turn_deg):.0f} degrees {way} in the picture"
        return (f"The head is {turned}; it was looked at upright.",)


@dataclass(frozen=True, eq=False)
class _Example:
    """A lesion on one slice, and how much that slice counts for it."""

    lesion: Roi
    k: int
    weight: float


@dataclass(frozen=True, eq=False)
class _Look:
    """What BaseNet makes of an example.

    Attributes:
        embedded: One row, without the painted maps.
        midline: The midline on the slice; if it is not painted, the middle of the global view.
        painted: Whether it is.
    """

    embedded: Embedded
    midline: Midplane
    painted: bool

    @classmethod
    def of(cls, embedded: Embedded, view: Views, geometry: Geometry) -> _Look:
        """The look at an example with these views."""
        maps = None if embedded.midline is None else embedded.midline[0]
        midline = Midplane.from_painting(maps, view.places, geometry, view.global_view.shape[-1])
        return cls(replace(embedded, midline=None), midline, maps is not None)


@dataclass(frozen=True, eq=False)
class _Answer:
    """An example, its look, and its relation to the references.

    Attributes:
        neighbors: One row.
        scores: (sites,) relation scores.
    """

    example: _Example
    look: _Look
    neighbors: Neighbors
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Joined:
    """The answers of a lesion's slices, n rows of `neighbors`; all else is their mean, weighted by area.

    Attributes:
        scores: (sites,)
        shares: (sites,), or None without painting
        inside: Share of the lesion in any site, or None without painting.
        distance: To the nearest reference.
    """

    neighbors: Neighbors
    scores: NDArray[np.float64]
    shares: NDArray[np.float64] | None
    inside: float | None
    distance: float

    @classmethod
    def of(cls, answers: Sequence[_Answer]) -> _Joined:
        """The answers of at least one slice, joined."""
        weights = np.array([answer.example.weight for answer in answers])
        embedded = join_rows([answer.look.embedded for answer in answers])
        neighbors = join_rows([answer.neighbors for answer in answers])

        def mean(rows: NDArray[np.float32]) -> NDArray[np.float64]:
            return np.asarray(np.average(rows, axis=0, weights=weights))

        return cls(
            neighbors,
            mean(np.stack([answer.scores for answer in answers])),
            None if embedded.shares is None else mean(embedded.shares),
            None if embedded.inside is None else float(mean(embedded.inside)),
            float(mean(nearest_distances(neighbors))),
        )


def _examples(lesions: Sequence[Roi]) -> list[_Example]:
    """The slices of all lesions that are not too small, ascending by slice."""
    examples = [
        _Example(lesion, k, weight)
        for lesion in lesions
        if lesion.areas_px[lesion.largest_slice] >= MIN_PIXELS
        for k, weight in choose_slices(lesion, MAX_SLICES).items()
    ]
    return sorted(examples, key=lambda example: example.k)


def _nearest_few(nearest: Sequence[Reference], site: str | None) -> tuple[Reference, ...]:
    """The first `N_NEAREST` references; one of `site` is always among them."""
    chosen = list(nearest[:N_NEAREST])
    own = [reference for reference in nearest if reference.site == site]
    if own and own[0] not in chosen:
        chosen[-1] = own[0]
    return tuple(chosen)


def _by_site(numbers: NDArray[np.floating]) -> dict[str, float]:
    return {key: float(number) for key, number in zip(SITE_KEYS, numbers, strict=True)}


def _planes(k: int, look: _Look | None, midplane: Midplane | None, geometry: Geometry) -> list[Midplane]:
    """What tells left from right on slice k: the painted midline and the head's midplane count alike.

    Without both it is the middle of the global view; without a look at the slice, of the picture.
    """
    planes = [midplane] if midplane is not None else []
    if look is not None and (look.painted or not planes):
        planes.append(look.midline)
    if not planes:
        centre = geometry.to_world([[(geometry.shape[0] - 1) / 2, (geometry.shape[1] - 1) / 2, k]])[0]
        planes.append(Midplane(centre, geometry.display_axes[0], 0.0))
    return planes
