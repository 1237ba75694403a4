"""A toy model that any process can run, and a cluster inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from distributed import Client

from tilemap.models.card import ClassInfo, ModelCard
from tilemap.models.registry import file_sha256, save_card

BANDS = ("red", "green", "nir")


def make_toy(folder: Path) -> Path:
    """A 1 x 1 convolution as ONNX file: class 1, 2 or 3 where that band is the largest."""
    import onnx

    helper, numbers = onnx.helper, onnx.numpy_helper
    weight = 50 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, "h", "w"])
        for name in ("x", "y")
    ]
    node = helper.make_node("Conv", ["x", "weight"], ["y"], kernel_shape=[1, 1])
    tensors = [numbers.from_array(weight, "weight")]
    graph = helper.make_graph([node], "toy", ends[:1], ends[1:], tensors)
    opset = [helper.make_opsetid("", 17)]
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    card = ModelCard(
        name="toy", title="Toy", description="The largest band.", license="Apache-2.0",
        bands=BANDS, units="reflectance", stride=1, context=0, activation="logits",
        classes=tuple(
            ClassInfo(value=number, name=name, color=color)
            for number, (name, color) in enumerate(
                (("soil", "#c05020"), ("grass", "#20a020"), ("wood", "#204080")), 1
            )
        ),
        weights=path.name, sha256=file_sha256(path),
    )  # fmt: skip
    save_card(card, folder)
    return folder


@contextmanager
def cluster() -> Iterator[Client]:
    """One worker in a thread of this process, so that files can be changed between its tasks."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client
