"""The model card: the README of a bundle, made from its ``bundle.json`` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from situs.anatomy import SITES
from situs.bundle.format import recipe_settings
from situs.tables import markdown_table

__all__ = ["model_card"]

_INTENDED_USE = """\
## Intended use

Names the anatomical site and the side of a lesion in a head CT of an adult, from the scan and a mask of the
lesion. Made for research and for developers who put it behind a lesion detector.

**Not a medical device.** It is not cleared for diagnosis or treatment in any country; a qualified reader has
to check every answer. It says where a marked region lies, not whether there is a lesion or what kind it is.
It has not been validated on children, after surgery, or on anatomy unlike that of its training data.
"""

_DEFAULT_DATA = "See the recipe and the training facts below."


def model_card(description: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        description: The content of ``bundle.json``, see `situs.bundle.write`. These entries need words:

            - ``training``: facts by name. The texts ``data`` and ``attribution`` (strings or lists of
              strings) become paragraphs, the rest a table.
            - ``certainty``, if there: a calibration, see `situs.certainty.Calibration.to_dict`.
            - ``references``, if there: how many were ``added`` and ``removed`` since the training.
            - ``pictures``, if there: how many show ``rendered`` scans, and how many scans of ``patients``.
            - ``evaluation``: a list of evaluations, each with a ``title``. All else is optional. ``text`` (a
              string or a list of strings) becomes paragraphs. ``sites``, ``weighted``, ``macro`` and
              ``rois``, as ``situs evaluate --json`` writes them, become a table of scores. ``facts`` (values
              by name) become a table.
    """
    training = dict(description["training"])
    data = _paragraphs(training.pop("data", _DEFAULT_DATA))
    attribution = _paragraphs(training.pop("attribution", ""))
    sections = [
        f"# {description['name']} {description['version']}\n",
        f"Written by {description['created_by']} from `bundle.json`; do not edit."
        " Method: a Relation Network over nearest neighbours (arXiv 1710.09180).\n",
        _INTENDED_USE,
        f"## Training data\n\n{data}\n",
        f"### Attribution\n\n{attribution}\n" if attribution else "",
        "## Training\n\n" + _facts({"recipe": recipe_settings(description["recipe"]), **training}),
        "## Inputs and outputs\n\n" + _contract(description),
        _certainty(description),
        _changes(description),
        _pictures(description),
        "## Evaluation\n\n" + _evaluations(description["evaluation"], _names(description)),
        "## Files\n\n" + _files(description),
    ]
    return "\n".join(section for section in sections if section)


def _contract(description: Mapping[str, Any]) -> str:
    rows = []
    for network, contract in description["networks"].items():
        for direction in ("inputs", "outputs"):
            for name, tensor in contract[direction].items():
                shape = " x ".join(str(n) for n in tensor["shape"])
                rows.append(
                    [network, direction[:-1], f"`{name}`", f"{tensor['type']} {shape}", tensor["meaning"]]
                )
    views = ", ".join(f"{name} {value}" for name, value in description["views"].items())
    sites = ", ".join(f"`{key}`" for key in _names(description))
    return (
        markdown_table(["network", "", "name", "type and shape", "meaning"], rows)
        + f"\nViews: {views}.\n\nEach slice of a lesion is compared with the {description['n_neighbors']}"
        f" nearest references of each site. `references.npz` has {description['n_references']} references."
        f"\n\nSites, in this order: {sites}.\n"
    )


def _certainty(description: Mapping[str, Any]) -> str:
    if "certainty" not in description:
        return ""
    calibration = description["certainty"]
    names = _names(description)
    rows = [[names[key], f"{value:.3f}"] for key, value in calibration["thresholds"].items()]
    folds = ""
    if calibration.get("folds"):
        folds = f" Their training differed from this bundle's: {'; '.join(calibration['folds'])}."
    alone = ""
    if calibration.get("alone"):
        alone = (
            "\nScans of fewer than five slices are judged with thresholds of their own, from the largest"
            " slice of each of these regions alone.\n"
        )
    return (
        "## Certainty\n\nThe normalised relation score of a site is its relation score divided by the sum"
        " over all sites. The *site set* of a lesion holds each site whose normalised relation score reaches"
        " that site's threshold. With these thresholds"
        f" {100 * calibration['level']:.0f} % of the lesions of each site had it in their set. They come"
        f" from {calibration['regions']} regions of {calibration['patients']} patients, answered by bundles"
        f" of the same networks and views that had not seen these patients.{folds}\n\n"
        "A lesion is not sure if its set has several sites, if its distance to the nearest reference is above"
        f" {calibration['farthest']:.2f}, or if less than {calibration['least_inside']:.2f} of it lies in any"
        " site.\n\n" + markdown_table(["site", "threshold"], rows) + alone
    )


def _changes(description: Mapping[str, Any]) -> str:
    if "references" not in description:
        return ""
    counts = description["references"]
    return (
        f"## References\n\nSince the training, {counts['added']} references were added and"
        f" {counts['removed']} removed. The networks were not trained again. An evaluation below is of the"
        " version that it names.\n"
    )


def _pictures(description: Mapping[str, Any]) -> str:
    if "pictures" not in description:
        return ""
    rendered, patients = (description["pictures"][whose] for whose in ("rendered", "patients"))
    if not rendered + patients:
        text = "None: this bundle holds no picture of any scan."
    else:
        text = (
            f"`pictures.npz` has small pictures of {rendered + patients} of the"
            f" {description['n_references']} references, a slice each: "
        )
        if not patients:
            text += "all of rendered scans, which show no patient."
        else:
            text += (
                f"{rendered} of rendered scans, which show no patient, and {patients} of patients' scans."
                " **Whoever gets this bundle sees them.**"
            )
    return f"## Pictures of references\n\n{text}\n"


def _evaluations(evaluations: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    if not evaluations:
        return "None yet. `situs evaluate BUNDLE COHORT --into-card` adds one.\n"
    return "\n".join(_evaluation(evaluation, names) for evaluation in evaluations)


def _evaluation(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    parts = [f"### {evaluation['title']}\n"]
    if "text" in evaluation:
        parts.append(_paragraphs(evaluation["text"]) + "\n")
    if "sites" in evaluation:
        parts.append(_scores(evaluation, names))
    if "facts" in evaluation:
        parts.append(_facts(evaluation["facts"]))
    return "\n".join(parts)


def _scores(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Precision, recall and F1 of each site and their means, as ``situs evaluate --json`` gives them."""
    rows = [[names.get(key, key), *_numbers(scores)] for key, scores in evaluation["sites"].items()]
    for example, means in (("", evaluation), (", a region as one example", evaluation.get("rois", {}))):
        rows += [
            [f"{mean} mean{example}", *_numbers(means[mean])]
            for mean in ("weighted", "macro")
            if mean in means
        ]
    return markdown_table(["site", "precision", "recall", "F1"], rows)


def _numbers(scores: Mapping[str, Any]) -> list[str]:
    return [f"{scores[name]:.3f}" for name in ("precision", "recall", "f1")]


def _names(description: Mapping[str, Any]) -> dict[str, str]:
    """The name of each site by its key, in the order of the bundle. The first bundles have keys alone."""
    sites = description["sites"]
    if isinstance(sites[0], str):
        return {key: SITES.site(key).name for key in sites}
    return {site["key"]: site["name"] for site in sites}


def _files(description: Mapping[str, Any]) -> str:
    rows = [
        [f"`{name}`", entry["bytes"], f"`{entry['sha256']}`"] for name, entry in description["files"].items()
    ]
    return markdown_table(["file", "bytes", "SHA-256"], rows)


def _facts(facts: Mapping[str, Any]) -> str:
    """A table of facts by name; a fact of several values by name takes a row for each."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows += [[f"{name}: {key}", _cell(entry)] for key, entry in value.items()]
        else:
            rows.append([name, _cell(value)])
    return markdown_table(["fact", "value"], rows)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _paragraphs(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "\n\n".join(text)
