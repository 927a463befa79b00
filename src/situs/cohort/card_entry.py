"""An evaluation on a cohort as an entry of the bundle's card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from situs.bundle import read_bundle
from situs.bundle.change import replace_evaluation
from situs.bundle.folder import output_folder
from situs.cohort.evaluate import Evaluation, evaluate
from situs.progress import Progress, silent

__all__ = ["card_entry", "evaluate_into_card"]


def evaluate_into_card(
    bundle: str | Path,
    cohort: Path,
    patients: Sequence[str] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> tuple[Evaluation, Path]:
    """Evaluate a bundle on a cohort, and write the scores into its description and its card.

    An earlier entry of a cohort of the same name is replaced.

    Args:
        bundle: Its folder; ``"shipped"`` for the one inside the package.
        cohort: A folder with a manifest. The name of the folder becomes the title of the entry.
        patients: Only these patients, at least one; None for all.
        out: See `situs.bundle.folder.output_folder`.
        jobs: Processes that make views.
        progress: Reports the stages ``scans`` and ``slices``.

    Returns:
        The evaluation, and the folder of the bundle that was written.

    Raises:
        BundleError: If the bundle cannot be used or changed.
        ManifestError: If the cohort cannot be used.
        OutputError: If the bundle or the cohort's cache cannot be written.
    """
    before = read_bundle(bundle)
    folder = output_folder(before, out)
    evaluation = evaluate(bundle, cohort, patients, jobs, progress=progress)
    return evaluation, replace_evaluation(before, card_entry(evaluation, cohort), folder)


def card_entry(evaluation: Evaluation, cohort: Path) -> dict[str, Any]:
    """The entry, JSON-able, see `situs.bundle.card.model_card`."""
    relation = evaluation.relation.to_dict()
    rois = evaluation.relation_rois.to_dict()
    text = [
        f"{evaluation.bundle} on {relation['examples']} slices of {rois['examples']} regions on "
        f"{relation['scans']} scans of {evaluation.n_patients} patients. The scores are those of the "
        "Relation Network. A slice is one example. The means leave out sites without an example.",
        _test_or_not(evaluation),
        evaluation.data,
    ]
    if evaluation.unknown_sites:
        text.append(
            f"Always missed, because the bundle has no reference: {', '.join(evaluation.unknown_sites)}."
        )
    return {
        "title": f"Cohort {cohort.resolve().name}",
        "text": [paragraph for paragraph in text if paragraph],
        "sites": {key: scores for key, scores in relation["sites"].items() if scores["support"]},
        "weighted": relation["weighted"],
        "macro": relation["macro"],
        "rois": {"weighted": rois["weighted"], "macro": rois["macro"]},
        "facts": _facts(evaluation),
    }


def _test_or_not(evaluation: Evaluation) -> str:
    if not evaluation.known_patients:
        return "No patient is among the bundle's references."
    return (
        f"**Not a test**: {evaluation.known_patients} of the {evaluation.n_patients} patients are among the "
        "bundle's references, and the networks were trained on them unless they were added later. No slice "
        "was compared with references of its own patient."
    )


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    """How the painted shares and the site sets do, where they could be measured."""
    facts: dict[str, Any] = {}
    if evaluation.share_error is not None:
        facts["regions that span several sites"] = evaluation.share_rois
        facts["error of their painted shares: mean of half the summed absolute difference"] = (
            evaluation.share_error
        )
    if evaluation.coverage is not None:
        facts |= evaluation.coverage.facts()
    return facts
