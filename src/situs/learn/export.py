"""From trained networks (torch) to a bundle, which is read back and compared before it takes its place."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from situs.anatomy import SITES, SiteList
from situs.bundle import BASENET_FILE, RELATION_FILE, Bundle
from situs.bundle.pictures import ReferencePicture
from situs.bundle.write import ExportedNetworks, write_bundle
from situs.errors import BundleError
from situs.learn.nets import BaseNet, RelationNetwork
from situs.learn.recipe import Recipe
from situs.neighbors import References, reference_sets
from situs.runtime import Runtime, relate_to_nearest
from situs.views import ViewSpec

__all__ = ["export_bundle"]

_OPSET = 18
# Largest difference allowed between the outputs of the trained networks and of the exported ones: relative
# where the value is above 1, else absolute. float32 arithmetic in another order stays below 1e-5.
_TOLERANCE = 1e-3
_COMPARED_BATCH = 32

# The outputs of BaseNet, in their order. Paths that do not paint give the first two.
_OUTPUTS = ("embedding", "site_probability", "shares", "inside", "midline")

Bytes = NDArray[np.uint8]


def export_bundle(
    basenet: BaseNet,
    relation: RelationNetwork,
    references: References,
    recipe: Recipe,
    facts: dict[str, Any],
    out: str | Path,
    *,
    sites: SiteList = SITES,
    sample_views: tuple[Bytes, Bytes] | None = None,
    pictures: Mapping[str, ReferencePicture] | None = None,
    name: str = "situs",
) -> Path:
    """Write the bundle of two trained networks.

    Args:
        basenet: Is exported as in use, and left in the mode it was in.
        relation: Is exported as in use, and left in the mode it was in.
        references: The labelled embeddings, made by `basenet`.
        recipe: How the networks were trained.
        facts: What else the card says about the training, see `situs.bundle.card.model_card`.
        out: The folder; new, empty, or an older bundle.
        sites: What the networks were trained on.
        sample_views: Global and local views (n, channels, size, size) uint8 to compare the networks on,
            beside random ones.
        pictures: Of references, by id.
        name: What the bundle calls itself.

    Returns:
        `out`.

    Raises:
        BundleError: If the exported networks do not answer as the trained ones do; nothing is written.
        OutputError: If `out` cannot be written, or holds something else.
    """
    spec, n_neighbors = recipe.spec, recipe.n_neighbors
    views = _random_views(spec)
    if sample_views is not None:
        views = (np.concatenate([views[0], sample_views[0]]), np.concatenate([views[1], sample_views[1]]))
    modes = basenet.training, relation.training
    network = _ExportedBaseNet(basenet).eval()
    relation.eval()
    try:
        outputs = _basenet_outputs(network, views)
        networks = ExportedNetworks(
            {
                BASENET_FILE: _basenet_bytes(network, views, outputs),
                RELATION_FILE: _relation_bytes(relation, n_neighbors, len(sites)),
            },
            _contract(spec, n_neighbors, basenet.width, outputs, len(sites)),
            spec,
            n_neighbors,
        )

        def check(bundle: Bundle) -> None:
            _check_parity(network, relation, bundle, views)

        return write_bundle(
            out,
            networks,
            references,
            sites=sites,
            recipe=recipe.to_dict(),
            training={**facts, "onnx opset": _OPSET},
            pictures=pictures,
            name=name,
            check=check,
        )
    finally:
        basenet.train(modes[0])
        relation.train(modes[1])


class _ExportedBaseNet(nn.Module):
    """BaseNet with the outputs that labelling needs, those of `_OUTPUTS`."""

    def __init__(self, basenet: BaseNet) -> None:
        super().__init__()
        self.basenet = basenet

    def forward(self, global_view: Tensor, local_view: Tensor) -> tuple[Tensor, ...]:
        output = self.basenet(global_view, local_view)
        painted = () if output.shares is None else (output.shares, output.inside, output.midline)
        return output.embedding, output.site_logits.softmax(dim=1), *painted


def _contract(spec: ViewSpec, k: int, width: int, outputs: Sequence[str], m: int) -> dict[str, Any]:
    """The inputs and outputs of the networks, as in `situs.bundle.write.ExportedNetworks`.

    Args:
        spec: How slices become views.
        k: The number of nearest references.
        width: Of the embedding.
        outputs: The names of BaseNet's outputs.
        m: The number of sites.
    """
    view = ["n", len(spec.channels), spec.size_px, spec.size_px]

    def tensor(kind: str, shape: list[Any], meaning: str) -> dict[str, Any]:
        return {"type": kind, "shape": shape, "meaning": meaning}

    from_basenet = {
        "embedding": tensor("float32", ["n", width], "the region's place among the references"),
        "site_probability": tensor("float32", ["n", m], "BaseNet's own answer"),
        "shares": tensor("float32", ["n", m], "share of the region in each site, of what lies in any"),
        "inside": tensor("float32", ["n"], "share of the region that lies in any site"),
        "midline": tensor(
            "float32",
            ["n", 2, 2, spec.size_px // 2, spec.size_px // 2],
            "over the global and the local view: distance to the midline (mm, left positive); head",
        ),
    }
    return {
        BASENET_FILE: {
            "inputs": {
                "global_view": tensor(
                    "uint8", view, "the whole slice, anterior up, the patient's left on the right"
                ),
                "local_view": tensor("uint8", view, "a crop around the region, in the same orientation"),
            },
            "outputs": {name: from_basenet[name] for name in outputs},
        },
        RELATION_FILE: {
            "inputs": {
                "target": tensor("float32", ["n", width], "an embedding"),
                "references": tensor("float32", ["n", m, k, width], "the nearest references of every site"),
                "present": tensor("bool", ["n", m, k], "which of them are there"),
            },
            "outputs": {
                "relation_score": tensor("float32", ["n", m], "relation with every site; not a probability")
            },
        },
    }


def _random_views(spec: ViewSpec) -> tuple[Bytes, Bytes]:
    """Noise with a square region in the middle, so that every output depends on its input."""
    rng = np.random.default_rng(0)
    shape = (4, len(spec.channels), spec.size_px, spec.size_px)
    views = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    if spec.roi_channel is not None:
        middle = slice(spec.size_px // 3, 2 * spec.size_px // 3)
        region = np.zeros(shape[2:], dtype=np.uint8)
        region[middle, middle] = 255
        views[:, :, spec.roi_channel] = region
    return views[0], views[1]


def _basenet_outputs(network: _ExportedBaseNet, views: tuple[Bytes, Bytes]) -> list[str]:
    """The names of BaseNet's outputs."""
    device = next(network.parameters()).device
    with torch.no_grad():
        output = network(*(torch.from_numpy(v[:1]).to(device) for v in views))
    return list(_OUTPUTS[: len(output)])


def _basenet_bytes(network: _ExportedBaseNet, views: tuple[Bytes, Bytes], outputs: list[str]) -> bytes:
    example = tuple(torch.from_numpy(v[:2]) for v in views)
    return _onnx_bytes(network, example, ["global_view", "local_view"], outputs)


def _relation_bytes(relation: RelationNetwork, k: int, m: int) -> bytes:
    example = (
        torch.rand(2, relation.width),
        torch.rand(2, m, k, relation.width),
        torch.ones(2, m, k, dtype=torch.bool),
    )
    return _onnx_bytes(relation, example, ["target", "references", "present"], ["relation_score"])


def _onnx_bytes(
    network: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str]
) -> bytes:
    """The network as an ONNX file whose first axes have any length."""
    device = next(network.parameters()).device
    n = torch.export.Dim("n")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's, about its own insides
            program = torch.onnx.export(
                network,
                tuple(tensor.to(device) for tensor in example),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=tuple({0: n} for _ in inputs),
            )
    finally:
        logger.setLevel(level)
    model = cast(torch.onnx.ONNXProgram, program).model_proto
    for node in model.graph.node:  # they hold stack traces, with paths of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def _check_parity(
    network: _ExportedBaseNet, relation: RelationNetwork, bundle: Bundle, views: tuple[Bytes, Bytes]
) -> None:
    """Compare the answers of the written bundle with those of the networks it was made from.

    Raises:
        BundleError: If they differ.
    """
    runtime = Runtime(bundle)
    embedded = runtime.embed(*views)
    neighbors, scores = relate_to_nearest(runtime, bundle, embedded.embedding)
    sets = reference_sets(bundle.references, neighbors)
    device = next(network.parameters()).device

    def on_device(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device)

    with torch.no_grad():
        batches = zip(*(on_device(v).split(_COMPARED_BATCH) for v in views), strict=True)
        expected = [torch.cat(parts) for parts in zip(*(network(*b) for b in batches), strict=True)]
        related = relation(on_device(embedded.embedding), on_device(sets), on_device(neighbors.present))
    pairs: dict[str, tuple[NDArray[Any], Tensor]] = {
        name: (getattr(embedded, name), e) for name, e in zip(_OUTPUTS, expected, strict=False)
    }
    pairs["relation_score"] = (scores, related)
    for name, (exported, trained) in pairs.items():
        truth = trained.cpu().numpy()
        difference = float((np.abs(exported - truth) / np.maximum(1, np.abs(truth))).max())
        if not difference < _TOLERANCE:
            raise BundleError(
                f"{bundle.name}: {name} of the exported network differs from the trained one by "
                f"{difference:.2g}, more than {_TOLERANCE:g}; nothing was written"
            )
