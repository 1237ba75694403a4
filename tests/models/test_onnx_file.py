"""Weights that lie outside an ONNX file are found wherever they hide, and refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemap.errors import ModelError
from tilemap.models.onnx_file import check_self_contained
from tilemap.models.onnx_model import OnnxModel
from tilemap.models.openvino_model import OpenVinoModel
from tilemap.models.registry import SHIPPED

from .conftest import OnnxFile

onnx = pytest.importorskip("onnx")
SHIPPED_FILE = SHIPPED / "iplunet-cloud-6b" / "model.onnx"


def _outside(tensor: Any, location: str) -> None:
    """Let a tensor refer to another file."""
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "weights.bin"])
@pytest.mark.parametrize("model", [OnnxModel, OpenVinoModel])
def test_weights_in_another_file_are_refused(
    onnx_file: OnnxFile, location: str, model: Callable[..., object]
) -> None:
    """Up, anywhere, or beside: also where the file is there and has the right size."""
    card, path = onnx_file()
    made = onnx.load(path)
    for folder in (path.parent.parent, path.parent):
        (folder / "secret.bin").write_bytes(bytes(48))
        (folder / "weights.bin").write_bytes(bytes(48))
    _outside(made.graph.initializer[0], location)
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ModelError) as caught:
        model(card, path)
    assert "'weight' refers to another file" in str(caught.value)
    assert "\n" not in str(caught.value)


def _constant(made: Any, tensor: Any) -> None:
    made.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))


def _sparse(made: Any, tensor: Any) -> None:
    made.graph.sparse_initializer.add().values.CopyFrom(tensor)


def _branch(made: Any, tensor: Any) -> None:
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    made.graph.node.append(onnx.helper.make_node("If", ["x"], ["c"], then_branch=inner))


def _function(made: Any, tensor: Any) -> None:
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    made.functions.append(
        onnx.helper.make_function("own", "F", [], ["c"], [node], made.opset_import)
    )


def _list(made: Any, tensor: Any) -> None:
    made.graph.node[0].attribute.add(name="many", type=9).tensors.add().CopyFrom(tensor)


@pytest.mark.parametrize("hide", [_constant, _sparse, _branch, _function, _list])
def test_hidden_tensors_are_found(
    onnx_file: OnnxFile, hide: Callable[[Any, Any], None], tmp_path: Path
) -> None:
    """In constants, sparse weights, branches, functions and lists; none is found where none is."""
    _, path = onnx_file()
    for outside in (False, True):
        made = onnx.load(path)
        tensor = onnx.numpy_helper.from_array(np.ones(12, np.float32), "hidden")
        if outside:
            _outside(tensor, "../x")
        hide(made, tensor)
        other = tmp_path / "other.onnx"
        other.write_bytes(made.SerializeToString())
        if outside:
            with pytest.raises(ModelError, match="'hidden' refers to another"):
                check_self_contained(other)
        else:
            check_self_contained(other)


def test_a_shipped_model_is_self_contained() -> None:
    """As every file that was exported by others in one piece."""
    check_self_contained(SHIPPED_FILE)


@given(st.data())
def test_damage_ends_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Cut off or changed anywhere: it passes or is refused, but never fails otherwise."""
    content = bytearray(SHIPPED_FILE.read_bytes()[:20_000])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(ModelError):
        check_self_contained(path)
