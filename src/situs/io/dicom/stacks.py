"""Images of DICOM files as stacks: parallel slices of one size, one at each place, that can be one scan.

A series is what shares a SeriesInstanceUID. It is split where it cannot be one stack, and joined where its
images were given UIDs of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.geometry import Geometry
from situs.io.dicom.frames import Frame

__all__ = ["LPS_TO_RAS", "SAME_PLACE_MM", "Stack", "in_plane_steps", "stack_geometry", "to_stacks"]

SAME_PLACE_MM = 0.01
_FEWEST = 3  # fewer images are no scan: they may belong to others
_MOST_PARTS = 64  # images of still other directions are no stacks
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# What may tell the images of one series apart, in the order that it is looked at; the last ones are moments.
_ASPECTS: tuple[tuple[str, Callable[[Frame], str]], ...] = (
    ("series number", lambda f: f.number),
    ("kernel", lambda f: f.kernel),
    ("window", lambda f: str(f.sharp)),
    ("slice thickness", lambda f: str(f.thickness)),
    ("image type", lambda f: " ".join(f.image_type)),
    ("contrast", lambda f: str(f.contrast)),
    ("acquisition", lambda f: f.acquisition),
    ("moment", lambda f: f.moment),
    ("study", lambda f: f.study),
    ("frame of reference", lambda f: f.reference),
)
_MOMENTS = ("acquisition", "moment", "study", "frame of reference", "time")


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that lie behind one another, from feet to head.

    Attributes:
        frames: The images.
        split_by: What tells them from the other images of their series, as in "another kernel".
        joined: Whether they were joined from series of one or two images.
    """

    frames: list[Frame]
    split_by: str = ""
    joined: bool = False

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first(self) -> Frame:
        """One of the images, for what they share."""
        return self.frames[0]

    @property
    def dynamic(self) -> bool:
        """Whether it shows one moment of several."""
        return self.split_by in _MOMENTS or self.first.dynamic

    @property
    def is_slices(self) -> bool:
        """Whether it is made of slices of the patient that can be placed."""
        return self.first.plane in ("axial", "coronal", "sagittal")


def to_stacks(frames: list[Frame]) -> list[Stack]:
    """All images as stacks, ordered by series number and then by time."""
    series = _grouped(frames, lambda f: (f.uid or f.number, f.plane, f.modality, f.body_part))
    stacks = []
    for group, joined in _joined(series):
        if group[0].plane in ("localizer", "unplaced"):
            stacks.append(Stack(group))
            continue
        for part in _parallel(Stack(group, joined=joined)):
            stacks += _split(part)
    return sorted(stacks, key=lambda s: (len(s.first.number), s.first.number, s.first.order))


def stack_geometry(frames: list[Frame]) -> Geometry:
    """Where the pixels of parallel slices of one size lie: (columns, rows, slices), RAS+ mm."""
    step_i, step_j = in_plane_steps(frames[0].orientation, frames[0].spacing)
    rows, columns = frames[0].shape
    origins = np.array([frame.position for frame in frames]) * LPS_TO_RAS
    return Geometry((columns, rows, len(frames)), step_i, step_j, origins)


def in_plane_steps(orientation: tuple[float, ...], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """(2, 3) steps to the next column (i) and to the next row (j), RAS mm; PixelSpacing is row first."""
    along_row, along_column = np.reshape(orientation, (2, 3)) * LPS_TO_RAS
    row_mm, column_mm = spacing
    return np.stack([along_row * column_mm, along_column * row_mm])


def _heights(frames: list[Frame]) -> NDArray[np.float64]:
    """(n,) where the images lie along the normal of the first one, mm."""
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])
    length = np.linalg.norm(normal)
    return np.asarray(np.array([f.position for f in frames]) @ normal / (length or 1.0))


def _grouped(frames: Iterable[Frame], key: Callable[[Frame], Any]) -> list[list[Frame]]:
    groups: dict[Any, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    return list(groups.values())


def _joined(series: list[list[Frame]]) -> list[tuple[list[Frame], bool]]:
    """Series of one or two slices are joined if they share number, study and frame of reference."""
    small = [g for g in series if len(g) < _FEWEST and g[0].plane not in ("localizer", "unplaced")]
    loose = [f for g in small for f in g]
    together = _grouped(
        loose, lambda f: (f.number, f.study, f.reference, f.plane, f.modality, f.body_part, f.shape)
    )
    uids = [{f.uid for f in g} for g in together]
    kept = [(g, False) for g in series if g not in small]
    return kept + [(g, len(u) > 1) for g, u in zip(together, uids, strict=True)]


def _parallel(stack: Stack) -> list[Stack]:
    """Its parts of one size, pixel spacing and direction, to within what headers round."""
    parts: list[list[Frame]] = []
    for frame in stack.frames:
        own = next((p for p in parts[:_MOST_PARTS] if not _difference(frame, p[0])), None)
        if own is None:
            parts.append([frame])
        else:
            own.append(frame)
    if len(parts) == 1:
        return [stack]
    why = _difference(parts[0][0], parts[1][0])
    return [replace(stack, frames=part, split_by=why) for part in parts]


def _difference(a: Frame, b: Frame) -> str:
    """Why two images cannot be slices of one stack; empty if they can."""
    if a.shape != b.shape:
        return "number of pixels"
    if _apart(a.spacing, b.spacing) > 1e-3 * max(b.spacing):
        return "pixel spacing"
    if _apart(a.orientation, b.orientation) > 2e-3:
        return "direction of the slices"
    return ""


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _split(stack: Stack) -> list[Stack]:
    """Its parts with one image at each place."""
    if len(stack) == 1:
        return [stack]
    for name, aspect in _ASPECTS:
        parts = _first_fit(_grouped(stack.frames, aspect), aspect)
        if len(parts) > 1:
            return [s for part in parts for s in _split(replace(stack, frames=part, split_by=name))]
    moments = _by_time(stack.frames)
    return [replace(stack, frames=_upward(m), split_by="time") for m in moments] or [
        replace(stack, frames=_upward(stack.frames))
    ]


def _upward(frames: list[Frame]) -> list[Frame]:
    heights = _heights(frames)
    up = 1 if np.cross(frames[0].orientation[:3], frames[0].orientation[3:])[2] >= 0 else -1
    return [frames[n] for n in np.argsort(up * heights, kind="stable")]


def _first_fit(classes: list[list[Frame]], aspect: Callable[[Frame], str]) -> list[list[Frame]]:
    """Classes of images put together as long as none lies between the slices of another.

    So the acquisitions of a scan that was taken slice by slice stay together, those of a repeated one do not.
    """
    ordered = sorted(classes, key=lambda c: (-min(len(c), _FEWEST), len(aspect(c[0])), aspect(c[0])))
    origin = ordered[0][0]
    parts: list[tuple[list[Frame], NDArray[np.float64]]] = []
    normal = np.cross(origin.orientation[:3], origin.orientation[3:])
    for images in ordered:
        heights = np.array([f.position for f in images]) @ normal
        for n, (part, taken) in enumerate(parts):
            if not _meet(heights, taken):
                parts[n] = part + images, np.concatenate([taken, heights])
                break
        else:
            parts.append((images, heights))
    return [part for part, _ in parts]


def _meet(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether slices at some heights lie between those at others, or at the same place.

    Slices that interleave must come nearer than half the usual distance of either; those of one slice each,
    or one above the other, must be at the same place.
    """
    near = SAME_PLACE_MM
    if min(len(a), len(b)) > 1 and a.max() > b.min() and b.max() > a.min():
        near = max(near, 0.45 * float(min(np.median(np.diff(np.sort(h))) for h in (a, b))))
    b = np.sort(b)
    at = np.clip(np.searchsorted(b, a), 1, len(b) - 1) if len(b) > 1 else np.zeros(len(a), dtype=int)
    gaps = np.minimum(np.abs(a - b[at]), np.abs(a - b[at - 1]))
    return bool(gaps.min() < near)


def _by_time(frames: list[Frame]) -> list[list[Frame]]:
    """The moments of images that time and number alone tell apart: at most places there are several."""
    places: dict[float, list[Frame]] = {}
    for frame, height in zip(frames, _heights(frames), strict=True):
        places.setdefault(round(float(height) / SAME_PLACE_MM), []).append(frame)
    counts = Counter(len(at) for at in places.values())
    if counts[1] * 2 > len(places) or not all(_tell_apart(at) for at in places.values()):
        return []
    moments: list[list[Frame]] = []
    for at in places.values():
        for n, frame in enumerate(sorted(at, key=lambda f: f.order)):
            if n == len(moments):
                moments.append([])
            moments[n].append(frame)
    return moments


def _tell_apart(frames: list[Frame]) -> bool:
    """Whether time and number order images; within one file their order does."""
    one_file = all(f.source is frames[0].source for f in frames)
    return len({f.order if one_file else f.order[:2] for f in frames}) == len(frames)
