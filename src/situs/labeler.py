"""From a scan and its regions of interest to one finding per lesion; no torch, no state between calls.

Each axial slice of a lesion is one example, as in the paper; their answers are joined by area. Millimetres
to the midline are positive on the patient's left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from situs.anatomy import SITE_KEYS
from situs.bundle import Bundle, read_bundle
from situs.errors import RoiError
from situs.finding import Finding, Reference, Side
from situs.geometry import Geometry
from situs.midplane import find_midplane
from situs.neighbors import Neighbors, nearest, nearest_distances, reference_sets
from situs.plausibility import lesion_doubts, scan_doubts
from situs.runtime import Embedded, Runtime
from situs.side import Midline, fit_midline, median_line, side_of_distances
from situs.views import LEAST_TURN_DEG, Views, extract_views
from situs.volume import Roi, Volume, split_lesions, union_mask

__all__ = ["Labeler", "choose_slices"]

# More slices of one lesion add time and no information: neighbouring slices look alike.
MAX_SLICES = 12
# A lesion with fewer pixels on its largest slice has no shape, and a place only to the millimetre.
MIN_PIXELS = 4
N_REFERENCES = 5
N_COMPARISON = (3, 2)  # references of the named site, and of the one with the next highest score
# So many slices are looked at first, to see how the head lies.
_FIRST_SLICES = 3

_NO_MIDLINE = "The side rests on the head's symmetry alone: this bundle does not paint the midline."

# Slices that are embedded and compared together; bounds the memory, whatever the number of lesions.
_BATCH_SLICES = 48


class Labeler:
    """Labels the lesions of a scan with a bundle.

    Attributes:
        bundle: the bundle that answers
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self._runtime = runtime

    @classmethod
    def load(cls, bundle: str | Path | None = None, threads: int = 1) -> Labeler:
        """A labeler from a bundle's folder; None for the shipped one; see `Runtime` for `threads`.

        Raises:
            BundleError: if the bundle cannot be used
        """
        found = read_bundle(bundle)
        return cls(found, Runtime(found, threads))

    def label(
        self,
        volume: Volume,
        rois: Sequence[Roi],
        progress: Callable[[int, int], None] | None = None,
        patient: str = "",
    ) -> list[Finding]:
        """Label every lesion of every region.

        Args:
            volume: the scan
            rois: regions on its grid; every connected part of one is a lesion
            progress: is called with the number of lesions done and their total
            patient: whose scan it is, as the bundle's references name patients; their own references are left
                out. Empty for somebody who is not among them

        Returns:
            the findings, in the order of `rois` and then by size. A lesion that is too small to be judged has
            no site and no scores, and says so in its doubts

        Raises:
            RoiError: if a region lies on another grid than the scan
        """
        for roi in rois:
            if roi.geometry.shape != volume.geometry.shape:
                raise RoiError(
                    f"rois: value {roi.value} lies on a grid of {roi.geometry.shape} voxels, the scan has "
                    f"{volume.geometry.shape}; read it with read_rois and this scan"
                )
        lesions = [lesion for roi in rois for lesion in split_lesions(roi)]
        if not lesions:
            return []
        scan = _Scan(volume, union_mask(rois, volume.geometry), tuple(scan_doubts(volume)))
        self._recognise(scan, lesions)
        findings: list[Finding] = []
        for batch in _batches(lesions):
            findings += self._label_batch(scan, batch, patient)
            if progress is not None:
                progress(len(findings), len(lesions))
        return findings

    def _recognise(self, scan: _Scan, lesions: Sequence[Roi]) -> None:
        """Find the midplane, near what is painted on some of the slices that the lesions meet, from bottom to
        top. A head that is turned by more than a little is looked at upright from here on."""
        met = sorted(((roi, k) for roi in lesions for k in roi.areas_px), key=lambda pair: pair[1])
        some = [met[n] for n in np.unique(np.linspace(0, len(met) - 1, _FIRST_SLICES).astype(int))]
        views, embedded = self._look(scan, some)
        rows = [embedded[n : n + 1] for n in range(len(some))]
        scan.seen = dict(zip(some, zip(views, rows, strict=True), strict=True))
        geometry = scan.volume.geometry
        painted = embedded.midline
        near = None if painted is None else median_line(_lines(views, painted, geometry), geometry)
        scan.midplane = find_midplane(scan.volume, near)
        lies = scan.midplane or near
        turn = 0.0 if lies is None else geometry.turn_deg(lies.left)
        if self.bundle.spec.upright and abs(turn) >= LEAST_TURN_DEG:
            scan.turn_deg, scan.seen = turn, {}

    def _look(self, scan: _Scan, shown: Sequence[tuple[Roi, int]]) -> tuple[list[Views], Embedded]:
        """The views of some regions on some slices, and what BaseNet says about them."""
        new = [pair for pair in shown if pair not in scan.seen]
        known = dict(scan.seen)
        if new:
            made = [
                extract_views(scan.volume, k, roi, scan.fill, self.bundle.spec, scan.turn_deg)
                for roi, k in new
            ]
            said = self._runtime.embed(
                np.stack([view.global_view for view in made]), np.stack([view.local_view for view in made])
            )
            known |= {pair: (made[n], said[n : n + 1]) for n, pair in enumerate(new)}
        both = [known[pair] for pair in shown]
        return [view for view, _ in both], Embedded.join([row for _, row in both])

    def _label_batch(self, scan: _Scan, batch: list[_Lesion], patient: str) -> Iterator[Finding]:
        views, embedded = self._look(scan, [(lesion.roi, k) for lesion in batch for k in lesion.weights])
        neighbors = nearest(
            embedded.embedding, self.bundle.references, self.bundle.n_neighbors, [patient] * len(views)
        )
        sets = reference_sets(self.bundle.references, neighbors)
        scores = self._runtime.relate(embedded.embedding, sets, neighbors.present)
        end = 0
        for lesion in batch:
            rows = slice(end, end + len(lesion.weights))
            end = rows.stop
            doubts = (*scan.doubts, *lesion_doubts(scan.volume, lesion.roi))
            notes = lesion.roi.notes
            if scan.turn_deg:
                way = "clockwise" if scan.turn_deg > 0 else "anticlockwise"
                turned = f"turned {abs(scan.turn_deg):.0f} degrees {way} in the picture"
                notes = (*notes, f"The head is {turned}; it was looked at upright.")
            painted = None if embedded.midline is None else embedded.midline[rows]
            lines = _lines(views[rows], painted, scan.volume.geometry)
            if painted is None:
                notes = (*notes, _NO_MIDLINE)
                lines = [scan.midplane or line for line in lines]
            side = _side(lesion, lines, scan.midplane)
            yield self._finding(lesion, rows, side, neighbors, scores[rows], embedded, doubts, notes)

    def _finding(
        self,
        lesion: _Lesion,
        rows: slice,
        side: Side,
        neighbors: Neighbors,
        scores: NDArray[np.float32],
        embedded: Embedded,
        doubts: tuple[str, ...],
        notes: tuple[str, ...],
    ) -> Finding:
        roi, areas = lesion.roi, lesion.roi.areas_px
        largest = _largest_slice(roi)
        found = self._nearest_first(neighbors, rows)
        site, site_scores, site_shares = None, {}, {}
        site_set: tuple[str, ...] = ()
        comparison: list[Reference] = []
        if areas[largest] >= MIN_PIXELS:
            weights = np.array(list(lesion.weights.values()))

            def join(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
                return np.asarray(np.average(numbers, axis=0, weights=weights))

            joined = join(scores)
            site_scores = _by_site(joined)
            ranked = sorted(site_scores, key=lambda key: -site_scores[key])
            site = ranked[0]
            for key, most in zip(ranked, N_COMPARISON, strict=False):
                comparison += [reference for reference in found if reference.site == key][:most]
            site_shares = {} if embedded.shares is None else _by_site(join(embedded.shares[rows]))
            if self.bundle.certainty is not None:
                inside = None if embedded.inside is None else float(join(embedded.inside[rows]))
                distance = float(join(nearest_distances(neighbors)[rows]))
                judgement = self.bundle.certainty.judge(joined, distance, inside)
                site_set, doubts = judgement.site_set, (*judgement.reasons, *doubts)
        else:
            small = f"Too small to be judged: fewer than {MIN_PIXELS} pixels on its largest slice."
            doubts = (small, *doubts)
        return Finding(
            roi_value=roi.value,
            roi_name=roi.name,
            component=roi.component,
            volume_ml=roi.volume_ml,
            slices=tuple(areas),
            largest_slice=largest,
            site=site,
            side=side,
            doubts=doubts,
            site_set=site_set,
            scores=site_scores,
            shares=site_shares,
            nearest=_nearest_few(found, site),
            comparison=tuple(comparison),
            notes=notes,
            bundle_name=self.bundle.name,
            bundle_version=self.bundle.version,
        )

    def _nearest_first(self, neighbors: Neighbors, rows: slice) -> list[Reference]:
        """The nearest references to any slice of the lesion, each named once."""
        present = neighbors.present[rows]
        indices, distances = neighbors.indices[rows][present], neighbors.distances[rows][present]
        known = self.bundle.references
        nearest_first: dict[str, Reference] = {}
        for place in np.argsort(distances, kind="stable"):
            name = str(known.ids[indices[place]])
            if name not in nearest_first:
                key = SITE_KEYS[known.sites[indices[place]]]
                nearest_first[name] = Reference(name, key, float(distances[place]))
        return list(nearest_first.values())


def choose_slices(areas_px: dict[int, int]) -> dict[int, float]:
    """The slices of a lesion to look at, with their weights.

    Args:
        areas_px: pixels on every slice that the lesion meets, ``{k: count}``, k ascending

    Returns:
        {k: weight} : every slice with its area; of more than `MAX_SLICES` slices those that hold the middles
        of `MAX_SLICES` parts of equal area, with the number of parts they stand for

        >>> choose_slices({3: 10, 4: 30})
        {3: 10.0, 4: 30.0}
    """
    if len(areas_px) <= MAX_SLICES:
        return {k: float(area) for k, area in areas_px.items()}
    below = np.cumsum(list(areas_px.values()))
    middles = (np.arange(MAX_SLICES) + 0.5) / MAX_SLICES * below[-1]
    places, parts = np.unique(np.searchsorted(below, middles), return_counts=True)
    slices = list(areas_px)
    return {slices[place]: float(n) for place, n in zip(places, parts, strict=True)}


def _nearest_few(found: Sequence[Reference], site: str | None) -> tuple[Reference, ...]:
    """The first `N_REFERENCES`; one of `site` is always in."""
    few = list(found[:N_REFERENCES])
    own = [reference for reference in found if reference.site == site]
    if own and own[0] not in few:
        few[-1] = own[0]
    return tuple(few)


def _largest_slice(roi: Roi) -> int:
    return max(roi.areas_px, key=lambda k: roi.areas_px[k])


def _by_site(numbers: NDArray[np.floating]) -> dict[str, float]:
    return {key: float(number) for key, number in zip(SITE_KEYS, numbers, strict=True)}


@dataclass(eq=False)
class _Scan:
    """A scan and what is known of it so far.

    Attributes:
        fill: (ni, nj, nk) all that is marked on it
        doubts: what is doubtful about it
        midplane: of the head; None if none was found
        turn_deg: how the head is turned in the views
        seen: views so turned that were made already, and what BaseNet says of them, by region and slice
    """

    volume: Volume
    fill: NDArray[np.bool_]
    doubts: tuple[str, ...]
    midplane: Midline | None = None
    turn_deg: float = 0.0
    seen: dict[tuple[Roi, int], tuple[Views, Embedded]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Lesion:
    """A lesion and the slices of it that are looked at, {k: weight}."""

    roi: Roi
    weights: dict[int, float]


def _batches(lesions: Sequence[Roi]) -> Iterator[list[_Lesion]]:
    """The lesions in their order, in lists of at most about `_BATCH_SLICES` slices, never an empty one."""
    batch: list[_Lesion] = []
    for roi in lesions:
        batch.append(_Lesion(roi, choose_slices(roi.areas_px)))
        if sum(len(lesion.weights) for lesion in batch) >= _BATCH_SLICES:
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(views: Sequence[Views], painted: NDArray[np.float32] | None, geometry: Geometry) -> list[Midline]:
    """The midline on every slice, as it is painted; without painting, the middle of the global view."""
    maps = [None] * len(views) if painted is None else painted
    return [
        fit_midline(of_view, view.places, geometry, view.global_view.shape[-1])
        for of_view, view in zip(maps, views, strict=True)
    ]


def _side(lesion: _Lesion, lines: Sequence[Midline], midplane: Midline | None) -> Side:
    """The side of a lesion, from all its pixels on the slices that were looked at: how far they are from the
    slice's own midline and from the head's midplane counts alike."""
    geometry = lesion.roi.geometry
    distances, weights = [], []
    for (k, weight), line in zip(lesion.weights.items(), lines, strict=True):
        i, j = np.nonzero(lesion.roi.slice_mask(k))
        world = geometry.to_world(np.stack([i, j, np.full_like(i, k)], axis=1))
        both = [midline.distances_mm(world) for midline in (line, midplane or line)]
        distances.append(np.mean(both, axis=0))
        weights.append(np.full(i.size, weight / i.size))
    return side_of_distances(np.concatenate(distances), np.concatenate(weights))
