"""What is added to the relation scores of sites that a bundle was not trained on.

The networks have seen hundreds of lesions of every trained site, and know them from many references. Of a new
site there are some, and its lesions were learned as lesions of the sites around it. So its scores come out
too low, even for its own lesions. One number for each new site mends this: an offset of its logits. It is as
large as it can be while the references of the trained sites, each compared with those of other patients, keep
their sites but for `MOST_LOSS` of their macro F1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from situs.bundle import Bundle
from situs.cohort.sampling import choose_evenly
from situs.progress import Progress, silent
from situs.runtime import Runtime, relate_to_nearest

__all__ = ["MOST_LOSS", "fit_score_offsets", "largest_offset"]

# Of the macro F1 of the trained sites, for each new site.
MOST_LOSS = 0.01
# Where a new site is not in the way of any other, nothing else bounds its offset.
_MOST_OFFSET = 10.0
_TARGETS = 100  # references of each trained site that are asked
_BATCH = 128  # of them at a time; their reference sets take some tens of MB
_LEAST_SCORE = 1e-7


def fit_score_offsets(bundle: Bundle, progress: Progress = silent) -> dict[str, float]:
    """The offset of every new site of a bundle that has references, by its key.

    Args:
        bundle: Has the references. Its offsets do not count.
        progress: Called with the stage ``offsets``.

    Raises:
        BundleError: If the inference engine cannot load the networks.
    """
    references, trained = bundle.references, bundle.n_trained_sites
    new = [n for n in np.unique(references.sites).tolist() if n >= trained]
    known = np.flatnonzero(references.sites < trained)
    if not new or not len(known):
        return {}
    rng = np.random.default_rng(0)
    targets = known[choose_evenly(references.sites[known], references.patients[known], _TARGETS, rng)]
    runtime, parts = Runtime(bundle, offsets=False), []
    for a in range(0, len(targets), _BATCH):
        part = targets[a : a + _BATCH]
        embeddings = references.embeddings[part].astype(np.float32)
        parts.append(relate_to_nearest(runtime, bundle, embeddings, references.patients[part])[1])
        progress("offsets", min(a + _BATCH, len(targets)), len(targets))
    scores = np.clip(np.concatenate(parts).astype(np.float64), _LEAST_SCORE, 1 - _LEAST_SCORE)
    logits = np.log(scores / (1 - scores))
    truth = references.sites[targets]
    return {bundle.sites.keys[n]: largest_offset(logits[:, :trained], logits[:, n], truth) for n in new}


def largest_offset(
    logits: NDArray[np.floating], new: NDArray[np.floating], truth: NDArray[np.integer]
) -> float:
    """The largest offset of a new site's logits that costs the others at most `MOST_LOSS` of macro F1.

    Args:
        logits: (n, m) of n targets with the m trained sites.
        new: (n,) with the new site.
        truth: (n,) the numbers of the targets' sites, below m.
    """
    m = logits.shape[1]
    answer, lead = logits.argmax(axis=1), logits.max(axis=1) - new
    order = np.argsort(lead, kind="stable")
    counts = np.bincount(truth, minlength=m)
    present = counts > 0
    right = np.bincount(truth[answer == truth], minlength=m)
    said = np.bincount(answer, minlength=m)

    def macro_f1() -> float:
        return float((2 * right[present] / (counts + said)[present]).mean())

    least = macro_f1() - MOST_LOSS
    for target in order.tolist():  # with a rising offset the new site takes them in this order
        site = answer[target]
        said[site] -= 1
        right[site] -= site == truth[target]
        if macro_f1() < least:
            return float(np.clip(lead[target] - 1e-3, -_MOST_OFFSET, _MOST_OFFSET))
    return _MOST_OFFSET
