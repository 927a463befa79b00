"""Which stack of DICOM images is the scan: of several, the plain axial head CT that the mask meets.

Nothing but series numbers goes into a text, and UIDs where a series was asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from situs.errors import ScanError, SeveralSeriesError
from situs.io.dicom.stacks import Stack, stack_geometry

__all__ = ["UID", "Meets", "choose_stack", "is_head"]

Meets = Callable[[Stack], float]

_RANKS = (
    "the mask does not meet it",
    "not the head",
    "one moment of several",
    "reformatted",
    "not known to be the head",
    "covers less",
    "derived",
    "sharp kernel",
    "contrast medium",
    "fewer slices",
)
_PLAIN = 4  # so many of these first make a series no candidate for a person to choose
_HEAD = ("HEAD", "BRAIN", "SKULL", "CRAN", "CEREB", "NEURO", "KOPF", "SCHAED", "TETE", "CABEZA", "TESTA")
# No other text of a header is shown, because it may name the patient; nor is a UID that is none.
_MODALITY = re.compile("CT|MR|PT|NM|US|CR|DX|XA|RF|MG|OT|SC|SR|SEG|RTSTRUCT|RTDOSE|RTPLAN|PR|KO|colour")
UID = re.compile(r"[0-9.]{1,64}")
_MOST_LISTED = 12


def choose_stack(
    stacks: Sequence[Stack],
    series: str | None,
    name: str,
    fewest: int = 3,
    meets: Meets | None = None,
    ask: bool = False,
) -> tuple[Stack, tuple[str, ...]]:
    """The images of the head CT, and a sentence on the choice if there was one.

    Of several, in this order: the one that the mask meets before others, the head before other parts of the
    body, one that shows one moment alone before those of a perfusion study, axial before reformatted, what is
    known to be the head, the one that covers the head, original before derived, soft before sharp kernels,
    without before with contrast medium, more slices before fewer.

    Args:
        stacks: All images.
        series: SeriesNumber or SeriesInstanceUID of the one that is asked for.
        name: The folder or file, for the error text.
        fewest: How many slices a scan has at least.
        meets: How well the mask fits a stack: the part of it that lies there, in [0, 1], or more if its UIDs
            name the stack.
        ask: Whether to refuse to choose among plain axial series of the head.

    Raises:
        ScanError: There is no such series, or the images are of several patients; the text lists what there
            is.
        SeveralSeriesError: With `ask`, if there are several.
    """
    usable = [s for s in stacks if s.is_slices and s.first.modality == "CT" and len(s) >= fewest]
    if series is not None:
        usable = _asked_for(usable, stacks, series, name)
    if not usable:
        raise ScanError(f"{name}: {_nothing_usable(stacks, fewest)}")
    widest = max(_extent_mm(s) for s in usable)
    shares = [meets(s) if meets and len(usable) > 1 else 1.0 for s in usable]
    missed = {id(s): share < 0.5 * max(shares) for s, share in zip(usable, shares, strict=True)}

    def rank(stack: Stack) -> tuple[int, ...]:
        return (int(missed[id(stack)]), *_rank(stack, widest))

    ranked = sorted(usable, key=rank)
    best = ranked[0]
    if ask and series is None:
        _refuse_choice([s for s in ranked if rank(s)[:_PLAIN] == rank(best)[:_PLAIN]], name)
    if series is None and max(shares) <= 1:  # no mask names its images
        _refuse_other_patients(usable, name)
    if len({f.patient for f in best.frames} - {0}) > 1:
        raise ScanError(
            f"{name}: series {best.first.number} holds images of several patients (PatientID), expected one: "
            "export it again"
        )
    notes = _join_notes(best)
    if len(stacks) == 1:
        return best, notes
    text = f"Series {best.first.number} was read ({len(best)} slices)"
    others = ranked[1:]
    if series is not None:
        text += ", as asked for"
        others = [s for s in others if s.first.number == best.first.number]
    reasons = [f"{_stack_text(s)}: {_why_not(s, best, rank)}" for s in others]
    if series is None:
        reasons += [_stack_text(s) + _split_text(s, best) for s in stacks if s not in usable]
    reasons = _counted(reasons)
    shown = "; ".join(reasons[:10]) + f"; and {len(reasons) - 10} more" * (len(reasons) > 10)
    return best, (f"{text}; not {shown}." if shown else f"{text}.", *notes)


def _refuse_choice(candidates: list[Stack], name: str) -> None:
    """Raise the error that names the series of these stacks, if there are several."""
    of_series: dict[str, Stack] = {}
    for stack in candidates:
        first = stack.first
        of_series.setdefault(first.uid if UID.fullmatch(first.uid) else first.number, stack)
    if len(of_series) > 1:
        listed = [(key, _description(stack), len(stack)) for key, stack in of_series.items()]
        raise SeveralSeriesError(f"{name}: holds {len(listed)} head CT series: choose one", listed)


def _description(stack: Stack) -> str:
    """``series 3: axial CT, 28 images, sharp kernel``; nothing of the header's own words."""
    first = stack.first
    more = (
        ("sharp kernel", first.sharp), ("contrast medium", first.contrast),
        ("derived", "DERIVED" in first.image_type),
    )  # fmt: skip
    return ", ".join(
        [f"series {first.number}: {_content_text(stack)}", *(word for word, holds in more if holds)]
    )


def _refuse_other_patients(usable: Sequence[Stack], name: str) -> None:
    if len({s.first.patient for s in usable} - {0}) > 1:
        raise ScanError(
            f"{name}: holds CT of several patients (PatientID), expected one: give the folder of one, or "
            f"ask for a series by its UID; there is: {_list_text(usable, uids=True)}"
        )


def _asked_for(usable: list[Stack], stacks: Sequence[Stack], series: str, name: str) -> list[Stack]:
    wanted = [s for s in usable if _is_named(s, series)]
    if len({s.first.uid for s in wanted}) > 1:
        listed = "; ".join(_counted([f"{_uid_text(s)} ({_content_text(s)})" for s in wanted]))
        raise ScanError(
            f"{name}: several series have the number {series}: give the SeriesInstanceUID of one: {listed}"
        )
    if wanted:
        return wanted
    asked = [s for s in stacks if _is_named(s, series)]
    if asked:
        raise ScanError(f"{name}: series {series} is no CT that can be read: {_list_text(asked)}")
    numbers = {s.first.number for s in stacks}
    alike = len(numbers) < len({s.first.uid for s in stacks}) or "without number" in numbers
    raise ScanError(f"{name}: no CT series {series}; there is: {_list_text(stacks, uids=alike)}")


def _is_named(stack: Stack, series: str) -> bool:
    return series == stack.first.number or any(series == f.uid for f in stack.frames)


def _nothing_usable(stacks: Sequence[Stack], fewest: int) -> str:
    """Why no stack is a scan, and what there is."""
    ct = [s for s in stacks if s.first.modality == "CT" and s.first.plane == "unplaced"]
    if ct and not any(s.is_slices for s in stacks):
        largest = max(ct, key=len)
        if problem := next((f.problem for f in largest.frames if f.problem), ""):
            return (
                f"series {largest.first.number} has {problem}, which no CT has: export the original CT; "
                f"there is: {_list_text(stacks)}"
            )
        tags = " and ".join(largest.first.missing)
        return (
            f"the images of series {largest.first.number} cannot be placed in the patient: {tags} "
            f"{'is' if len(largest.first.missing) == 1 else 'are'} missing: export the original CT; "
            f"there is: {_list_text(stacks)}"
        )
    slices = "slice" if fewest == 1 else "slices"
    return f"no CT series of at least {fewest} parallel {slices}; there is: {_list_text(stacks)}"


def _join_notes(stack: Stack) -> tuple[str, ...]:
    if not stack.joined:
        return ()
    return (
        f"The {len(stack)} slices have {len({f.uid for f in stack.frames})} SeriesInstanceUIDs; they were "
        "joined, because they share series number, study and frame of reference.",
    )


def _extent_mm(stack: Stack) -> float:
    return float(np.ptp(stack_geometry(stack.frames).heights_mm))


def is_head(body_part: str) -> bool:
    """Whether a BodyPartExamined names the head or a part of it."""
    return any(word in body_part.upper() for word in _HEAD)


def _rank(stack: Stack, widest_mm: float) -> tuple[int, ...]:
    """Smaller is better; one entry for each of `_RANKS` after the first."""
    first = stack.first
    of_head = is_head(first.body_part)
    return (
        int(bool(first.body_part) and not of_head),
        int(stack.dynamic),
        int(first.plane != "axial"),
        int(not of_head),
        int(_extent_mm(stack) < 0.6 * widest_mm),
        int("DERIVED" in first.image_type),
        int(first.sharp),
        int(first.contrast),
        -len(stack),
    )


def _why_not(stack: Stack, best: Stack, rank: Callable[[Stack], tuple[int, ...]]) -> str:
    pairs = zip(_RANKS, rank(stack), rank(best), strict=True)
    reason = next((reason for reason, mine, its in pairs if mine != its), "comes later")
    if reason in ("fewer slices", "comes later"):
        return _split_text(stack, best).removeprefix(": ") or reason
    return reason


def _split_text(stack: Stack, best: Stack) -> str:
    """``: another kernel`` for a part of the same series."""
    return f": another {stack.split_by}" if stack.split_by and stack.first.uid == best.first.uid else ""


def _content_text(stack: Stack) -> str:
    """``axial CT, 28 images``, and what is missing to place them."""
    first = stack.first
    plane = "" if first.plane == "unplaced" else f"{first.plane} "
    count = f"{len(stack)} image{'s' if len(stack) != 1 else ''}"
    missing = f" without {' and '.join(first.missing)}" if first.missing and not plane else ""
    missing = f" with {first.problem}" if first.problem else missing
    modality = first.modality if _MODALITY.fullmatch(first.modality) else "of another modality"
    return f"{plane}{modality if first.modality else 'of unknown modality'}, {count}{missing}"


def _uid_text(stack: Stack) -> str:
    return stack.first.uid if UID.fullmatch(stack.first.uid) else "none"


def _stack_text(stack: Stack) -> str:
    return f"series {stack.first.number} ({_content_text(stack)})"


def _list_text(stacks: Sequence[Stack], uids: bool = False) -> str:
    texts = _counted([_stack_text(s) + f" with UID {_uid_text(s)}" * uids for s in stacks])
    return ", ".join(texts[:_MOST_LISTED] + ["..."] * (len(texts) > _MOST_LISTED)) or "no image"


def _counted(texts: list[str]) -> list[str]:
    """Each text once, in its order, with how often it stands there."""
    return [f"{count} x {text}" if count > 1 else text for text, count in Counter(texts).items()]
