"""From a scan and its regions of interest to one finding per lesion; no torch, no state between calls.

Each axial slice of a lesion is one example, as in the paper; the answers of a lesion's slices are joined by
area. Examples are looked at slice by slice, so that what the lesions of a slice share is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle, read_bundle
from situs.certainty import FEWEST_SLICES, Calibration
from situs.errors import RoiError
from situs.finding import Finding, Reference
from situs.geometry import Geometry
from situs.midplane import Midplane
from situs.neighbors import nearest_first
from situs.plausibility import gray_levels, lesion_doubts, scan_doubts
from situs.progress import Progress, silent
from situs.records import take_rows
from situs.runtime import Runtime, relate_to_nearest
from situs.sentences import Sentence
from situs.side import side_of_lesion
from situs.slice_answers import LesionAnswer, LesionSlice, Pose, SliceAnswer, SliceLook, planes_on
from situs.views import LEAST_TURN_DEG, MIRRORED, Views, extract_views
from situs.volume import OutsideRoi, Roi, Volume, choose_slices, split_regions, union_mask

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


class Labeler:
    """Labels the lesions of a scan with a bundle.

    Several threads may call one labeler at the same time. A call changes nothing of the labeler, and the
    engine is made for calls side by side. Memory does not grow with the number of calls.

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
        lesions, outside = split_regions(rois)
        if not lesions:
            return self._outside(volume, outside, lesions)
        examples = _examples(lesions)
        scan = _Scan(volume, union_mask(regions, volume.geometry))
        pose, looks, views = self._find_pose(scan, examples)
        of_lesion: dict[Roi, list[SliceAnswer]] = {lesion: [] for lesion in lesions}
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            for answer in self._relate(batch, self._look(scan, batch, pose, looks, views), patient):
                of_lesion[answer.slice.lesion].append(answer)
            progress("slices", start + len(batch), len(examples))
        levels = gray_levels(volume)
        doubts = (*volume.doubts, *self._few_slices(volume), *scan_doubts(volume, levels))
        own = lesion_doubts(volume, lesions, levels)
        findings = [
            self._finding(lesion, of_lesion[lesion], pose, (*doubts, *lesion.doubts, *its))
            for lesion, its in zip(lesions, own, strict=True)
        ]
        return findings + self._outside(volume, outside, lesions)

    def _calibration(self, geometry: Geometry) -> Calibration | None:
        """What judges the lesions of a scan; as slices alone only if the bundle was calibrated for them."""
        whole = self.bundle.calibration
        return whole and (whole.for_scan(geometry.shape[2]) or whole)

    def _few_slices(self, volume: Volume) -> tuple[Sentence, ...]:
        """The doubt about a scan of few slices, unless the bundle was calibrated for slices alone."""
        n, whole = volume.geometry.shape[2], self.bundle.calibration
        if n >= FEWEST_SLICES or (whole is not None and whole.for_scan(n) is not None):
            return ()
        return (Sentence("doubt.few_slices", count=str(n)) if n > 1 else Sentence("doubt.one_slice"),)

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
                doubts=(Sentence("doubt.outside_scan"), *volume.doubts, *region.doubts),
                site_set=(),
                scores={},
                shares={},
                nearest=(),
                comparison=(),
                notes=region.notes,
                bundle_name=self.bundle.name,
                bundle_version=self.bundle.version,
                sites=self.bundle.sites,
            )
            for region in regions
            for number, volume_ml in enumerate(
                region.volumes_ml, start=1 + sum(lesion.value == region.value for lesion in lesions)
            )
        ]

    def _find_pose(
        self, scan: _Scan, examples: Sequence[LesionSlice]
    ) -> tuple[Pose, dict[LesionSlice, SliceLook], dict[LesionSlice, Views]]:
        """How the head lies, searched for near what is painted on some of the examples, from bottom to top.

        Returns:
            The pose; the looks at these examples, unless they must be looked at again; and their views, if
            the other hemisphere must be shown in them and nothing else is to change.
        """
        rows = np.linspace(0, len(examples) - 1, min(len(examples), _FIRST_EXAMPLES)).astype(int)
        first = [examples[row] for row in rows]
        views = self._views(scan, first, Pose(None), {})
        looks = self._embed(views, scan.volume.geometry)
        geometry = scan.volume.geometry
        painted = [look.midline for look in looks.values() if look.painted]
        near = Midplane.median(painted, geometry) if painted else None
        midplane = Midplane.by_symmetry(scan.volume, near)
        lies = midplane or near
        turn = 0.0 if lies is None else geometry.turn_deg(lies.left)
        spec = self.bundle.spec
        pose = Pose(midplane, turn if spec.upright and abs(turn) >= LEAST_TURN_DEG else 0.0)
        if pose.turn_deg != 0:
            return pose, {}, {}
        if MIRRORED in spec.channels and midplane is not None:
            return pose, {}, views
        return pose, looks, {}

    def _look(
        self,
        scan: _Scan,
        examples: Sequence[LesionSlice],
        pose: Pose,
        known: Mapping[LesionSlice, SliceLook],
        views: Mapping[LesionSlice, Views],
    ) -> dict[LesionSlice, SliceLook]:
        """What BaseNet makes of examples, ascending by slice, unless it is `known` already.

        `views` are those of some examples that lack nothing but the other hemisphere.
        """
        new = [example for example in examples if example not in known]
        made = self._embed(self._views(scan, new, pose, views), scan.volume.geometry)
        return {example: made[example] if example in made else known[example] for example in examples}

    def _views(
        self,
        scan: _Scan,
        examples: Sequence[LesionSlice],
        pose: Pose,
        known: Mapping[LesionSlice, Views],
    ) -> dict[LesionSlice, Views]:
        """The views of examples, ascending by slice; of those `known`, the other hemisphere is added."""
        mirror = None if pose.midplane is None else pose.midplane.mirror
        made: dict[LesionSlice, Views] = {}
        for (k, is_known), group in groupby(examples, key=lambda example: (example.k, example in known)):
            its = list(group)
            views = extract_views(
                scan.volume,
                k,
                [example.lesion for example in its],
                scan.fill,
                self.bundle.spec,
                pose.turn_deg,
                mirror,
                [known[example] for example in its] if is_known else None,
            )
            made.update(zip(its, views, strict=True))
        return made

    def _embed(self, views: Mapping[LesionSlice, Views], geometry: Geometry) -> dict[LesionSlice, SliceLook]:
        """What BaseNet makes of views."""
        if not views:
            return {}
        embedded = self._runtime.embed(
            np.stack([view.global_view for view in views.values()]),
            np.stack([view.local_view for view in views.values()]),
        )
        return {
            example: SliceLook.of(take_rows(embedded, slice(n, n + 1)), view, geometry)
            for n, (example, view) in enumerate(views.items())
        }

    def _relate(
        self, examples: Sequence[LesionSlice], looks: Mapping[LesionSlice, SliceLook], patient: str
    ) -> list[SliceAnswer]:
        """Examples related to the references of every site."""
        embeddings = np.concatenate([looks[example].embedded.embedding for example in examples])
        patients = [patient] * len(examples)
        neighbors, scores = relate_to_nearest(self._runtime, self.bundle, embeddings, patients)
        return [
            SliceAnswer(example, looks[example], take_rows(neighbors, slice(n, n + 1)), scores[n])
            for n, example in enumerate(examples)
        ]

    def _finding(
        self, lesion: Roi, answers: Sequence[SliceAnswer], pose: Pose, doubts: tuple[Sentence, ...]
    ) -> Finding:
        """The finding for a lesion from the answers of its slices; without any it is too small."""
        site, scores, shares, sites = None, {}, {}, self.bundle.sites
        site_set: tuple[str, ...] = ()
        nearest: list[Reference] = []
        comparison: list[Reference] = []
        notes = (*lesion.notes, *pose.notes)
        crosses = False
        looks = {answer.slice.k: answer.look for answer in answers}
        weights = {answer.slice.k: answer.slice.weight for answer in answers} or lesion.areas_px
        planes = {k: planes_on(k, looks.get(k), pose.midplane, lesion.geometry) for k in weights}
        if answers:
            joined = LesionAnswer.of(answers)
            scores = dict(zip(sites.keys, joined.scores.tolist(), strict=True))
            ranked = sorted(scores, key=lambda key: -scores[key])
            site = ranked[0]
            crosses = sites.site(site).crosses_midline
            nearest = nearest_first(self.bundle.references, joined.neighbors, sites)
            for key, most in zip(ranked, N_COMPARISON, strict=False):
                comparison += [reference for reference in nearest if reference.site == key][:most]
            if joined.shares is not None:
                shares = dict(zip(sites.keys, joined.shares.tolist(), strict=True))
            calibration = self._calibration(lesion.geometry)
            if calibration is not None:
                judgement = calibration.judge(joined.scores, joined.distance, joined.inside)
                site_set, doubts = judgement.site_set, (*judgement.reasons, *doubts)
                notes = (*notes, *judgement.notes)
            if not answers[0].look.painted:
                notes = (*notes, _NO_MIDLINE)
        else:
            doubts = (Sentence("doubt.too_small", count=str(MIN_PIXELS)), *doubts)
        return Finding(
            roi_value=lesion.value,
            roi_name=lesion.name,
            component=lesion.component,
            volume_ml=lesion.volume_ml,
            slices=tuple(lesion.areas_px),
            largest_slice=lesion.largest_slice,
            site=site,
            side=side_of_lesion(lesion, crosses, weights, planes),
            doubts=doubts,
            site_set=site_set,
            scores=scores,
            shares=shares,
            nearest=_nearest_few(nearest, site),
            comparison=tuple(comparison),
            notes=notes,
            bundle_name=self.bundle.name,
            bundle_version=self.bundle.version,
            sites=self.bundle.sites,
        )


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan and what is marked on it, (ni, nj, nk) bool."""

    volume: Volume
    fill: NDArray[np.bool_]


def _examples(lesions: Sequence[Roi]) -> list[LesionSlice]:
    """The slices of all lesions that are not too small, ascending by slice."""
    examples = [
        LesionSlice(lesion, k, weight)
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
