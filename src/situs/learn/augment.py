"""Random changes of examples, as another patient or scanner would make them; targets follow their views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from situs.cohort.examples import LATERAL_UNKNOWN, SITE_UNKNOWN, TARGETS
from situs.cohort.slices import Batch
from situs.views import MIRRORED, OTHER_SLICES, UNFILLED, ViewSpec

__all__ = ["augment"]

_MAX_SHIFT = 4  # pixels of the targets, two of the view

Bytes = NDArray[np.uint8]


def augment(batch: Batch, spec: ViewSpec, rng: np.random.Generator) -> Batch:
    """Change every example of a batch at random.

    In 30 % of the examples the slices below and above are hidden, as on a single slice, in 10 % one of them.

    Half of the examples are mirrored left to right, with their targets. Gray values get another contrast,
    offset and gamma, and in some examples noise or blur; the region's mask does not. The local view is
    shifted by up to 8 pixels, in steps of two, so that targets at half the size shift exactly.

    Args:
        batch: n examples.
        spec: How their views were made.
        rng: Draws the changes.

    Returns:
        The changed examples; `batch` stays as it is.
    """
    batch = _mirror(batch, rng.random(len(batch.site)) < 0.5)
    batch = _shift_local(batch, rng.integers(-_MAX_SHIFT, _MAX_SHIFT + 1, (len(batch.site), 2)))
    gray: dict[str, list[int]] = {}  # by window, whose channels are changed alike, whichever slice they show
    for c, name in enumerate(spec.channels):
        window = name.partition("_")[0]
        if window != "roi":
            gray.setdefault(window, []).append(c)
    batch = _hide(batch, spec, rng)
    return replace(
        batch,
        global_view=_change_gray(batch.global_view, list(gray.values()), rng),
        local_view=_change_gray(batch.local_view, list(gray.values()), rng),
    )


def _mirror(batch: Batch, which: NDArray[np.bool_]) -> Batch:
    """The examples `which` (n,) mirrored left to right."""
    changed = {}
    for name in ("global_view", "local_view", *TARGETS):
        maps = getattr(batch, name)
        if maps is None:
            continue
        maps = maps.copy()
        flipped = maps[which][..., ::-1]
        if name.endswith("lateral"):
            flipped = np.where(flipped == LATERAL_UNKNOWN, flipped, -flipped)
        maps[which] = flipped
        changed[name] = maps
    return replace(batch, **changed)


def _shift_local(batch: Batch, steps: NDArray[np.integer]) -> Batch:
    """The local view and its targets moved by `steps` (n, 2) target pixels down and to the right."""
    fills = {"local_view": (2, 0), "local_sites": (1, SITE_UNKNOWN), "local_lateral": (1, LATERAL_UNKNOWN)}
    changed = {}
    for name, (scale, fill) in fills.items():
        maps = getattr(batch, name)
        if maps is None:
            continue
        moved = np.full_like(maps, fill)
        for n, (down, right) in enumerate((steps * scale).tolist()):
            (to_r, from_r), (to_c, from_c) = _overlap(down), _overlap(right)
            moved[n][..., to_r, to_c] = maps[n][..., from_r, from_c]
        changed[name] = moved
    return replace(batch, **changed)


def _hide(batch: Batch, spec: ViewSpec, rng: np.random.Generator) -> Batch:
    """The examples without some of their channels, at random.

    The slice below or above, or both, are black, as where a scan has none. In 10 % the mirrored hemisphere is
    black, as where no midplane is found. In 15 % the regions are filled in the picture that shows what is
    under them, so that their surroundings and shape are learned from too.
    """
    below, above = (spec.channels_of(where) for where in OTHER_SLICES)
    mirrored, unfilled = (
        [c for c, name in enumerate(spec.channels) if name == hidden] for hidden in (MIRRORED, UNFILLED)
    )
    if not (below or above or mirrored or unfilled):
        return batch
    views = batch.global_view.copy(), batch.local_view.copy()
    n = len(batch.site)
    draw = rng.random(n)
    hide = (
        (below, draw < 0.35),
        (above, (draw < 0.3) | (draw >= 0.95)),
        (mirrored, rng.random(n) < 0.1),
    )
    for channels, hidden in hide:
        for view in views:
            for c in channels:
                view[hidden, c] = 0
    filled = rng.random(n) < 0.15
    for c in unfilled:
        for view in views:
            view[filled, c] = view[filled, spec.channels.index("brain")]
    return replace(batch, global_view=views[0], local_view=views[1])


def _overlap(step: int) -> tuple[slice, slice]:
    """Where the kept part of an axis goes, and where it came from, when it moves by `step`."""
    if step >= 0:
        return slice(step, None), slice(None, -step or None)
    return slice(None, step), slice(-step, None)


def _change_gray(view: Bytes, alike: list[list[int]], rng: np.random.Generator) -> Bytes:
    """The view with other gray values.

    Args:
        view: (n, channels, size, size).
        alike: Lists of channels that get the same contrast, offset and gamma. Other channels are left alone.
        rng: Draws the changes.
    """
    if not alike:
        return view
    channels = [c for group in alike for c in group]
    out = view.copy()
    n = len(view)
    pixels = view.shape[-1] ** 2
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    for group in alike:
        contrast = rng.uniform(0.8, 1.25, (n, 1))
        offset = rng.uniform(-0.12, 0.12, (n, 1))
        gamma = np.exp(rng.uniform(-0.25, 0.25, (n, 1)))
        curve = np.clip((levels**gamma - 0.5) * contrast + 0.5 + offset, 0, 1)
        tables = np.rint(curve * 255).astype(np.uint8)
        for i, table in enumerate(tables):
            for c in group:
                out[i, c] = table[view[i, c]]
    blurred = np.flatnonzero(rng.random(n) < 0.2)
    for c in channels:
        out[blurred, c] = _blur(out[blurred, c])
    # One pool of normal numbers for the batch: a new one for every pixel would cost more than the rest.
    pool = rng.standard_normal(4 * pixels, dtype=np.float32)
    for i in np.flatnonzero(rng.random(n) < 0.5).tolist():
        amplitude = rng.uniform(2, 14)
        for c in channels:
            start = int(rng.integers(3 * pixels))
            noise = pool[start : start + pixels].reshape(view.shape[-2:]) * np.float32(amplitude)
            np.clip(out[i, c] + noise, 0, 255, out=noise)
            out[i, c] = noise
    return out


def _blur(planes: Bytes) -> Bytes:
    """Planes (n, size, size) smoothed by (1, 2, 1) / 4 along rows and columns; the border stays."""
    wide = planes.astype(np.uint16)
    wide[:, 1:-1] = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2 >> 2
    wide[:, :, 1:-1] = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:] + 2 >> 2
    return wide.astype(np.uint8)
