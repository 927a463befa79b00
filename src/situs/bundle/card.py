"""The model card: the README of a bundle, made from its ``bundle.json`` and nothing else."""

from __future__ import annotations

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


def model_card(description: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        description: The content of ``bundle.json``, see `situs.bundle.write`. Of ``training``, the texts
            ``data`` and ``attribution`` (strings or lists of strings) become paragraphs, the rest a table.
            ``evaluation``, if not empty, is a list of tables: ``title`` and, as written by
            ``situs evaluate --json``, ``sites``, ``weighted`` and ``macro`` with precision, recall and f1.
            ``certainty``, if there, is that of `situs.certainty.Calibration.to_dict`. ``references``, if
            there, counts those ``added`` and ``removed`` since the training, and ``pictures``, if there,
            those with a picture, of ``rendered`` scans and of ``patients``.
    """
    training = dict(description["training"])
    data = _lines(training.pop("data", _DEFAULT_DATA))
    attribution = _lines(training.pop("attribution", ""))
    parts = [
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
        "## Evaluation\n\n" + _evaluation(description["evaluation"]),
        "## Files\n\n" + _files(description),
    ]
    return "\n".join(part for part in parts if part)


def _contract(description: dict[str, Any]) -> str:
    rows = []
    for network, contract in description["networks"].items():
        for direction in ("inputs", "outputs"):
            for name, tensor in contract[direction].items():
                shape = " x ".join(str(n) for n in tensor["shape"])
                rows.append(
                    [network, direction[:-1], f"`{name}`", f"{tensor['type']} {shape}", tensor["meaning"]]
                )
    views = ", ".join(f"{name} {value}" for name, value in description["views"].items())
    sites = ", ".join(f"`{key}`" for key in description["sites"])
    return (
        markdown_table(["network", "", "name", "type and shape", "meaning"], rows)
        + f"\nViews: {views}. Each slice of the lesion is one example; each class offers the"
        f" {description['n_neighbors']} of the {description['n_references']} references in"
        f" `references.npz` that are nearest to it.\n\nSites, in this order: {sites}.\n"
    )


def _certainty(description: dict[str, Any]) -> str:
    if "certainty" not in description:
        return ""
    found = description["certainty"]
    names = {site.key: site.name for site in SITES}
    rows = [[names[key], f"{threshold:.3f}"] for key, threshold in found["thresholds"].items()]
    return (
        f"## Certainty\n\nOf {100 * found['level']:.0f} % of the lesions of each site the set of sites"
        f" shall hold the true one: calibrated on {found['regions']} regions of {found['patients']} patients,"
        " answered by bundles of the same recipe that had not seen them. A lesion is not sure if its set has"
        f" several sites, if the nearest reference is farther than {found['farthest']:.2f}, or if less than"
        f" {found['least_inside']:.2f} of it lies in any site.\n\n"
        + markdown_table(["site", "in the set from this part of the relation scores on"], rows)
    )


def _changes(description: dict[str, Any]) -> str:
    if "references" not in description:
        return ""
    counts = description["references"]
    return (
        f"## References\n\nSince the training, {counts['added']} references were added and"
        f" {counts['removed']} removed. The networks were not trained again, and what stands here about"
        " training and evaluation is from before.\n"
    )


def _pictures(description: dict[str, Any]) -> str:
    if "pictures" not in description:
        return ""
    rendered, patients = (description["pictures"][whose] for whose in ("rendered", "patients"))
    if not rendered + patients:
        said = "None: this bundle holds no picture of any scan."
    else:
        said = (
            f"`pictures.npz` has small pictures of {rendered + patients} of the"
            f" {description['n_references']} references, a slice each: "
        )
        if not patients:
            said += "all of rendered scans, which show no patient."
        else:
            said += (
                f"{rendered} of rendered scans, which show no patient, and {patients} of patients' scans."
                " **Whoever gets this bundle sees them.**"
            )
    return f"## Pictures of references\n\n{said}\n"


def _evaluation(tables: list[dict[str, Any]]) -> str:
    if not tables:
        return "None was given to the export.\n"
    parts = []
    for table in tables:
        rows = [
            [site.name, *_numbers(table["sites"][site.key])] for site in SITES if site.key in table["sites"]
        ]
        rows += [[f"{mean} mean", *_numbers(table[mean])] for mean in ("weighted", "macro")]
        parts.append(f"{table['title']}\n\n" + markdown_table(["site", "precision", "recall", "F1"], rows))
    return "\n".join(parts)


def _numbers(scores: dict[str, Any]) -> list[str]:
    return [f"{scores[name]:.2f}" for name in ("precision", "recall", "f1")]


def _files(description: dict[str, Any]) -> str:
    rows = [
        [f"`{name}`", entry["bytes"], f"`{entry['sha256']}`"] for name, entry in description["files"].items()
    ]
    return markdown_table(["file", "bytes", "SHA-256"], rows)


def _facts(facts: dict[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [[f"{name}: {key}", _short(entry)] for key, entry in value.items()]
        else:
            rows.append([name, _short(value)])
    return markdown_table(["fact", "value"], rows)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_short(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "\n\n".join(text)
