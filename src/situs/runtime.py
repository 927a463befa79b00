"""The inference engine: the networks of a bundle as functions on arrays.

No other file knows that the engine is ONNX Runtime.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from situs.bundle import BASENET_FILE, RELATION_FILE, Bundle
from situs.errors import BundleError
from situs.neighbors import Neighbors, nearest, reference_sets
from situs.records import join_rows

__all__ = ["Embedded", "Runtime", "relate_to_nearest"]

# Unless it is told not to before it is imported, ONNX Runtime sends its maker what it is used for, and leaves
# a file in the temporary folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Float32 = NDArray[np.float32]

# Regions embedded at a time: larger batches need more memory (6 MB a region) and are no faster.
_EMBED_BATCH = 2
# Numbers in one batch of reference pairs, the largest array within the Relation Network: 8 MB.
_RELATE_NUMBERS = 2_000_000
# Of a logit. The odds stay finite in single precision.
_MOST_CORRECTION = 40
# The engine's own messages are not for users: its errors are raised as well.
_SILENT = 4
_OF_TRAINED_SITES = {"site_probability", "shares"}
# A batch takes a tenth of a second; a network that takes much longer was not made by situs. CPU time counts:
# a process may be suspended, or wait for a core.
_MOST_CPU_S = 10.0


@dataclass(frozen=True, eq=False)
class Embedded:
    """What BaseNet says about n regions.

    Attributes:
        embedding: (n, width) float32
        site_probability: (n, sites) BaseNet's own answer, sums to 1; 0 for sites that it was not trained on
        shares: (n, sites) share of the region in each site, of what lies in any; sums to 1, likewise
        inside: (n,) share of the region that lies in any site
        midline: (n, 2, 2, h, w) over the global and over the local view: signed distance to the midline in
            mm, positive on the patient's left, and how much of each pixel is head

    A bundle whose BaseNet does not paint has none of the last three: None.
    """

    embedding: Float32
    site_probability: Float32
    shares: Float32 | None = None
    inside: Float32 | None = None
    midline: Float32 | None = None


class Runtime:
    """The networks of a bundle, loaded.

    Args:
        bundle: Where they are.
        threads: How many an operation may use. One: scans are labelled side by side, and a single scan spends
            more time being read than in the networks.
        corrected: Whether the relation scores of new sites are corrected, see
            `situs.cohort.score_corrections`.

    Raises:
        BundleError: If the engine cannot load a network, or it takes other inputs than the bundle says.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, corrected: bool = True) -> None:
        k, width = bundle.n_neighbors, bundle.embedding_width
        sites = bundle.n_trained_sites
        self._n_sites, self._n_trained = len(bundle.sites), sites
        self._correction = (bundle.score_weights.T, bundle.score_offsets) if corrected else None
        view = (len(bundle.spec.channels), bundle.spec.size_px, bundle.spec.size_px)
        half = (bundle.spec.size_px // 2,) * 2
        self._basenet = _Network(
            bundle.path / BASENET_FILE,
            threads,
            {"global_view": view, "local_view": view},
            {
                "embedding": (width,),
                "site_probability": (sites,),
                "shares": (sites,),
                "inside": (),
                "midline": (2, 2, *half),
            },
        )
        self._relation = _Network(
            bundle.path / RELATION_FILE,
            threads,
            {"target": (width,), "references": (sites, k, width), "present": (sites, k)},
            {"relation_score": (sites,)},
        )

    def embed(self, global_views: NDArray[np.uint8], local_views: NDArray[np.uint8]) -> Embedded:
        """Embed n regions from their views.

        Args:
            global_views: (n, channels, size, size) uint8; n at least 1.
            local_views: Likewise.

        Raises:
            BundleError: If the network cannot be run, takes too long, or gives values that are not finite.
        """
        batches = [
            self._basenet.run({"global_view": global_views[part], "local_view": local_views[part]})
            for part in _parts(len(global_views), _EMBED_BATCH)
        ]
        if self._n_sites > self._n_trained:
            for batch in batches:
                for name in _OF_TRAINED_SITES & batch.keys():
                    batch[name] = _padded(batch[name], self._n_sites)
        return join_rows([Embedded(**batch) for batch in batches])

    def relate(self, targets: Float32, references: Float32, present: NDArray[np.bool_]) -> Float32:
        """Relation scores (n, sites) in [0, 1] of targets with the reference sets of every site.

        Args:
            targets: (n, width) embeddings; n at least 1.
            references: (n, sites, k, width) the sets of `situs.neighbors.reference_sets`.
            present: (n, sites, k) which of them are there; a site without any scores 0.

        Raises:
            BundleError: As for `embed`.
        """
        n, _, k, width = references.shape
        at_once = self._n_trained
        batch = max(1, _RELATE_NUMBERS // (at_once * k * (k + 1) * width))
        scores = np.empty((n, self._n_sites), dtype=np.float32)
        # The score of a site depends on its own references alone, so that any number of sites goes through a
        # network that takes some at a time.
        for sites in _parts(self._n_sites, at_once):
            width_of_part = len(range(*sites.indices(self._n_sites)))
            for part in _parts(n, batch):
                inputs = {
                    "target": targets[part],
                    "references": _padded(references[part, sites], at_once),
                    "present": _padded(present[part, sites], at_once),
                }
                scores[part, sites] = self._relation.run(inputs)["relation_score"][:, :width_of_part]
        if self._correction is not None and self._n_sites > self._n_trained:
            weights, offsets = (values[..., self._n_trained :] for values in self._correction)
            # What is added to a logit multiplies the odds.
            odds = np.exp(np.clip(targets @ weights + offsets, -_MOST_CORRECTION, _MOST_CORRECTION))
            new = scores[:, self._n_trained :]
            scores[:, self._n_trained :] = new * odds / (new * odds + 1 - new)
        return scores


class _Network:
    """One network in the engine, held to what it should take and give.

    Args:
        path: The ONNX file.
        threads: How many an operation may use.
        inputs: Name to shape, without the first axis, of all inputs.
        outputs: Likewise of all outputs that there may be.
    """

    def __init__(
        self,
        path: Path,
        threads: int,
        inputs: dict[str, tuple[int, ...]],
        outputs: dict[str, tuple[int, ...]],
    ) -> None:
        self._path, self._outputs = path, outputs
        self._session = _session(path, threads)
        takes = {i.name: tuple(i.shape[1:]) for i in self._session.get_inputs()}
        if takes != inputs:
            raise BundleError(f"{path}: takes {takes}, expected {inputs}; get the bundle again")
        self._names = [output.name for output in self._session.get_outputs()]
        if not {*self._names} <= set(outputs):
            raise BundleError(f"{path}: gives {self._names}, expected {list(outputs)}; get the bundle again")

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, Float32]:
        """The outputs by name for n examples."""
        import onnxruntime as ort

        n = len(next(iter(inputs.values())))
        options = ort.RunOptions()
        options.log_severity_level = _SILENT
        done = threading.Event()
        threading.Thread(target=_stop_when_due, args=(options, done), daemon=True).start()
        try:
            arrays = self._session.run(self._names, inputs, options)
        except Exception as error:  # the engine raises classes of its own, with no common public root
            reason = f"it takes over {_MOST_CPU_S:.0f} s" if options.terminate else _first_line(error)
            raise BundleError(f"{self._path}: the network cannot be run ({reason})") from error
        finally:
            done.set()
        outputs = dict(zip(self._names, arrays, strict=True))
        for name, array in outputs.items():
            shape = (n, *self._outputs[name])
            if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
                what = (
                    f"{array.dtype} {array.shape}" if array.shape != shape else "values that are no numbers"
                )
                raise BundleError(f"{self._path}: {name}: expected finite float32 {shape}, got {what}")
        return outputs


def _stop_when_due(options: Any, done: threading.Event) -> None:
    """Tell the engine to end a run that takes too much CPU time, unless it is done before."""
    begun, left = time.process_time(), _MOST_CPU_S
    while left > 0:
        if done.wait(left):
            return
        left = _MOST_CPU_S - (time.process_time() - begun)
    options.terminate = True


def relate_to_nearest(
    runtime: Runtime,
    bundle: Bundle,
    embeddings: Float32,
    patients: Sequence[str] | NDArray[np.str_] | None = None,
) -> tuple[Neighbors, Float32]:
    """Relate embeddings to their nearest references in every site: the heart of the method.

    Args:
        runtime: The bundle's networks.
        bundle: What has the references.
        embeddings: (n, width), n at least 1.
        patients: (n,) the patient of each, whose own references are left out, see `nearest`.

    Returns:
        The nearest references of each embedding, and its relation scores (n, sites) in [0, 1].
    """
    neighbors = nearest(embeddings, bundle.references, bundle.n_neighbors, patients)
    sets = reference_sets(bundle.references, neighbors)
    return neighbors, runtime.relate(embeddings, sets, neighbors.present)


def _padded(array: NDArray[Any], n_sites: int) -> NDArray[Any]:
    """An array (n, some, ...) with zeros for the sites that it lacks, (n, n_sites, ...)."""
    lacking = n_sites - array.shape[1]
    return array if not lacking else np.pad(array, [(0, 0), (0, lacking), *[(0, 0)] * (array.ndim - 2)])


def _parts(n: int, size: int) -> list[slice]:
    return [slice(a, a + size) for a in range(0, n, size)]


def _session(path: Path, threads: int) -> Any:
    import onnxruntime as ort  # here, because a wrong argument should be told before 0.1 s of import

    ort.set_default_logger_severity(_SILENT)
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Without the engine's own heap, thousands of batches leave holes in the process's: 380 to 540 MB instead
    # of 290 for 2,000 lesions. A plan for every batch size that is met would be kept for good.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Falling back to another provider would print to standard output, and there is none.
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # the engine raises classes of its own, with no common public root
        raise BundleError(
            f"{path}: the inference engine cannot load the network ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
