"""The probe finds what is known: the context of toys exactly, and no bound where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilemap.api import demo_scene
from tilemap.errors import ModelError, SceneError
from tilemap.geometry import Window
from tilemap.models import registry
from tilemap.models.probe import (
    far_of,
    patch_side,
    probe_context,
    probe_halo,
    region_side,
)
from tilemap.models.protocol import FloatArray, Model
from tilemap.probing import probe_model
from tilemap.stages.segment import standardise
from tilemap.stages.survey import spread
from tilemap.stages.tile import read_patch
from tilemap.stores.geotiff import SceneRequest, open_scene
from tilemap.testing import BoxModel, load_toy, random_scene, toy_card, write_geotiff


def _region(model: Model, seed: int = 0) -> FloatArray:
    side = region_side(model)
    scene = random_scene((side, side), len(model.card.bands), seed, np.float32)
    return np.ascontiguousarray(scene, dtype=np.float32)


class BlockModel(BoxModel):
    """A box model after a mean over blocks of one stride: looks farther from some pixels."""

    def _features(self, image):  # type: ignore[no-untyped-def]
        step = self.card.stride
        bands, rows, cols = image.shape
        blocks = image.reshape(bands, rows // step, step, cols // step, step).mean(axis=(2, 4))
        return super()._features(blocks.repeat(step, axis=1).repeat(step, axis=2))


@pytest.mark.parametrize("context", [0, 1, 3, 7])
def test_context_of_a_toy_is_found_exactly(context: int) -> None:
    """A box mean looks as far as its card says, and not a pixel farther."""
    model = load_toy(toy_card(context=context, patch=64))
    assert probe_context(model, _region(model)[:, :64, :64]) == context


@pytest.mark.parametrize(("stride", "context"), [(4, 0), (8, 3)])
def test_a_strided_model_is_probed_at_its_worst_pixel(stride: int, context: int) -> None:
    """The first pixel of a block reaches the last one, and the box after it beyond."""
    model = BlockModel(toy_card(context=context, stride=stride, patch=64))
    assert probe_context(model, _region(model)[:, :64, :64]) == stride - 1 + context


def test_global_pooling_has_no_bound() -> None:
    """A change that reaches the edge of the patch may reach any edge."""
    model = load_toy(toy_card("pool", context=1, patch=64))
    assert probe_context(model, _region(model)[:, :64, :64]) is None


def test_a_context_that_fills_the_patch_is_no_bound() -> None:
    """What was seen of it was cut off."""
    model = load_toy(toy_card(context=31, patch=64))
    assert probe_context(model, _region(model)[:, :64, :64]) is None
    assert (
        probe_context(load_toy(toy_card(context=30, patch=64)), _region(model)[:, :64, :64]) == 30
    )


@pytest.mark.parametrize("patch", [None, 96])
def test_the_halo_of_a_toy_hides_what_it_cannot_see(patch: int | None) -> None:
    """From the context on nothing differs; below it something does, more towards the edge."""
    model = load_toy(toy_card(context=6, patch=patch))
    found = probe_halo(model, [_region(model, seed) for seed in range(2 if patch else 1)])
    assert found.context == 6
    assert found.halo is not None
    assert found.halo <= 8
    assert found.margins[0] == 0
    for margin, labels, probabilities in zip(
        found.margins, found.labels, found.probabilities, strict=True
    ):
        assert (labels == 0) == (probabilities == 0) or labels == 0
        if margin >= 6:
            assert labels == probabilities == 0
    assert found.probabilities[0] > found.probabilities[1] > 0
    assert found.labels[0] > 0.001


def test_a_halo_is_enough_only_if_all_larger_ones_are() -> None:
    """The tolerances hold from the halo on to the last margin."""
    model = load_toy(toy_card("pool", context=2, patch=96))
    found = probe_halo(model, [_region(model)])
    good = [
        labels <= 0.001 and probabilities <= 0.01
        for labels, probabilities in zip(found.labels, found.probabilities, strict=True)
    ]
    if found.halo is None:
        assert not good[-1]
    else:
        first = found.margins.index(found.halo)
        assert all(good[first:])
        assert first == 0 or not good[first - 1]


def test_no_margin_is_enough_for_a_model_that_sees_the_whole_patch() -> None:
    """Then there is no halo to store."""

    class Whole(BoxModel):
        def _features(self, image):  # type: ignore[no-untyped-def]
            pooled = image.mean(axis=(1, 2), keepdims=True)
            return super()._features(image) + 8 * (pooled - 0.4)

    model = Whole(toy_card(context=0, patch=64))
    ramp = np.linspace(0.1, 0.9, region_side(model), dtype=np.float32)
    region = np.ascontiguousarray(np.broadcast_to(ramp, (3, ramp.size, ramp.size)))
    found = probe_halo(model, [region * np.linspace(0.5, 1, ramp.size)[:, None].astype("f4")])
    assert found.context is None
    assert found.halo is None


def test_crops_must_be_there_and_of_the_right_size() -> None:
    """An error that says both sizes."""
    model = load_toy(toy_card(patch=64))
    with pytest.raises(ModelError, match=r"needs crops of \d+ x \d+ pixels, got \[\]"):
        probe_halo(model, [])
    with pytest.raises(ModelError, match=r"got \[\(3, 64, 64\)\]"):
        probe_halo(model, [_region(model)[:, :64, :64]])


@pytest.mark.parametrize("stride", [1, 4, 16])
def test_a_model_of_one_size_is_not_run_a_thousand_times(stride: int) -> None:
    """The reference of its middle is put together of a few forwards."""

    class Counted(BoxModel):
        calls = 0

        def predict(self, image, crop=None):  # type: ignore[no-untyped-def]
            Counted.calls += 1
            return super().predict(image, crop)

    model = Counted(toy_card(patch=64, stride=stride))
    probe_halo(model, [_region(model)])
    assert Counted.calls <= 40


@pytest.mark.parametrize("card", [toy_card(patch=64), toy_card(patch=64, stride=16), toy_card()])
def test_reference_and_patch_begin_on_the_stride(card) -> None:  # type: ignore[no-untyped-def]
    """Otherwise the strided layers of both see another phase."""
    model = load_toy(card)
    assert patch_side(model) % card.stride == 0
    assert far_of(model) % card.stride == 0
    assert region_side(model) == patch_side(model) + 2 * far_of(model)


@pytest.mark.parametrize("shape", [(900, 700), (100, 80)])
def test_crops_are_spread_over_the_scene(shape: tuple[int, int]) -> None:
    """As many as asked for, all different where there is room, each begins in the scene."""
    windows = list(spread(shape, 256, 16))
    assert len(windows) == 16
    assert all(window.shape == (256, 256) for window in windows)
    if min(shape) > 256:
        assert len(set(windows)) == 16
        assert all(Window(0, 0, *shape).contains(window) for window in windows)
    else:
        assert set(windows) == {Window(0, 0, 256, 256)}


def test_the_real_model_looks_23_pixels_far(home: Path) -> None:
    """On the scene that ships, as its convolutions add up; and the halo is remembered.

    Two 3 x 3 convolutions at each of five steps down to a quarter of the resolution and up again:
    an output pixel of phase 1 of 4 depends on pixels up to 23 before it, one of phase 2 on pixels
    up to 23 after it. With a stride of 4 its halo is 24.
    """
    pytest.importorskip("onnxruntime")
    ref = registry.resolve("iplunet-cloud-6b")
    request = SceneRequest(tuple(str(path) for path in demo_scene()))
    probed, found = probe_model(ref, request, regions=1, threads=2)
    assert found.context == 23
    assert ref.card.context is not None
    assert 23 <= ref.card.context <= 24
    assert found.halo is not None
    assert found.halo <= 24
    assert probed.card.halo == found.halo
    assert registry.resolve("iplunet-cloud-6b").card.halo == found.halo
    assert list(home.rglob("*.json"))


def test_context_on_the_whole_real_scene(data: Path) -> None:
    """In another place of the full scene, of water and beach, it is the same."""
    pytest.importorskip("onnxruntime")
    ref = registry.resolve("iplunet-cloud-6b")
    files = [data / "scenes" / f"s2_l1c_va_eastern_shore_{gsd}m.tif" for gsd in (10, 20)]
    request = SceneRequest(tuple(str(f) for f in files), bands=ref.card.bands, scale=1e-4)
    source = open_scene(request)
    model = registry.load(ref)
    with source.open() as reader:
        image, valid = read_patch(reader, Window(900, 1500, 1156, 1756))
    assert probe_context(model, standardise(image, valid, source.scene, ref.card)) == 23


def test_crops_of_one_class_prove_nothing(tmp_path: Path, home: Path) -> None:
    """Any halo would do there, also none: neither kernel nor command takes it for an answer."""
    model = load_toy(toy_card(context=6, patch=64))
    flat = np.full((3, region_side(model), region_side(model)), 0.2, np.float32)
    with pytest.raises(ModelError, match=r"the crops show one class only \(.*\), so that any halo"):
        probe_halo(model, [flat])
    pytest.importorskip("onnxruntime")
    ref = registry.resolve("iplunet-cloud-6b")
    clear = np.full((6, 90, 110), 500, dtype=np.uint16)
    path = write_geotiff(tmp_path / "a.tif", clear, names=ref.card.bands, scale=1e-4)
    with pytest.raises(ModelError, match="one class only"):
        probe_model(ref, SceneRequest((str(path),)), regions=1)
    assert not home.exists()
    assert registry.resolve("iplunet-cloud-6b").card == ref.card


def test_a_scene_of_nodata_cannot_be_probed(tmp_path: Path, home: Path) -> None:
    """Nothing is stored then."""
    pytest.importorskip("onnxruntime")
    ref = registry.resolve("iplunet-cloud-6b")
    blank = np.zeros((6, 90, 110), dtype=np.uint16)
    path = write_geotiff(tmp_path / "a.tif", blank, names=ref.card.bands, scale=1e-4, nodata=0)
    with pytest.raises(SceneError, match="at most 10 % nodata"):
        probe_model(ref, SceneRequest((str(path),)), regions=1)
    assert not home.exists()
