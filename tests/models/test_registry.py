"""Finding, verifying, importing and measuring models."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tilemap.errors import ModelError, OutputError, UsageError
from tilemap.models.mlm import card_to_item, read_card, write_json
from tilemap.models.registry import (
    SHIPPED,
    card_store,
    data_home,
    file_sha256,
    import_model,
    list_models,
    load,
    resolve,
    save_card,
    update_card,
)

from .conftest import OnnxFile, TorchFile

CLOUD = "iplunet-cloud-6b"


def test_a_shipped_name_is_found() -> None:
    """With its card, its file and the digest of both."""
    ref = resolve(CLOUD)
    assert ref.card.name == CLOUD
    assert ref.digest == ref.card.sha256 == file_sha256(ref.path)
    assert ref.shipped
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert len(pickle.dumps(ref)) < 8_000


def test_a_bare_file_is_found_by_its_digest(tmp_path: Path) -> None:
    """Under any name, in any folder."""
    file = tmp_path / "some name.onnx"
    shutil.copyfile(SHIPPED / CLOUD / "model.onnx", file)
    ref = resolve(str(file))
    assert ref.card.name == CLOUD
    assert ref.path == file
    assert load(ref).card == ref.card


def test_a_folder_its_card_and_its_weights_are_the_same_model(torch_file: TorchFile) -> None:
    """Whichever is named."""
    _, card, path = torch_file()
    save_card(card, path.parent)
    ref = resolve(path.parent)
    assert ref == resolve(path) == resolve(path.parent / "model.json")
    assert ref.card == card
    assert not ref.shipped
    image = np.zeros((3, 32, 64), np.float32)
    assert load(ref, precision="bfloat16").predict(image).shape == (4, 32, 64)


def test_unknown_names_list_what_there_is() -> None:
    """Names first."""
    with pytest.raises(ModelError, match=f"no model 'nope': must be one of .*{CLOUD}"):
        resolve("nope")


@pytest.mark.parametrize("path", ["nope.onnx", "models/nope.safetensors", "town/model"])
def test_a_file_that_is_not_there_is_named_as_that(path: str) -> None:
    """It was to be imported, as if it were only unknown."""
    with pytest.raises(ModelError, match=f"^no such file or folder: {path}; .*{CLOUD}"):
        resolve(path)


def test_a_shipped_card_without_weights_says_what_file_it_wants() -> None:
    """By digest."""
    with pytest.raises(ModelError, match="give the path of a file with sha256 abd33028e9e9"):
        resolve("ukis-csmask-6b-5class")


def test_a_file_no_card_knows(onnx_file: OnnxFile) -> None:
    """Says how to describe it."""
    _, path = onnx_file()
    with pytest.raises(ModelError, match=r"tilemap models import model\.onnx --card CARD"):
        resolve(path)


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    """Says what it must have."""
    with pytest.raises(ModelError, match=r"a model folder must have a model\.json"):
        resolve(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "weights.bin", "model.h5", "a.ckpt"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """Before a byte of them is read."""
    path = tmp_path / name
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="runs whatever code is in it"):
        resolve(path)
    with pytest.raises(ModelError, match="runs whatever code is in it"):
        import_model(path, tmp_path / "card.json")


def test_a_card_cannot_smuggle_in_a_pickle(torch_file: TorchFile) -> None:
    """A folder whose card names one is refused when it is loaded."""
    _, card, path = torch_file()
    other = path.with_name("model.pt")
    path.rename(other)
    save_card(card.model_copy(update={"weights": "model.pt"}), path.parent)
    with pytest.raises(ModelError, match="runs whatever code is in it"):
        load(resolve(path.parent))


def test_another_file_than_the_cards_is_refused(torch_file: TorchFile) -> None:
    """One changed bit is enough; both digests are named."""
    _, card, path = torch_file()
    save_card(card, path.parent)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load(resolve(path.parent))
    assert f"card says sha256 {card.sha256}, file has {file_sha256(path)}" in str(caught.value)


def test_load_refuses_what_it_does_not_know() -> None:
    """Precision, threads and a GPU for an ONNX file."""
    ref = resolve(CLOUD)
    with pytest.raises(UsageError, match="float32 or bfloat16, got 'int8'"):
        load(ref, precision="int8")
    with pytest.raises(UsageError, match="threads must be 1 or more, got 0"):
        load(ref, threads=0)
    with pytest.raises(UsageError, match="is an ONNX model and runs on cpu, got 'cuda'"):
        load(ref, device="cuda")


def test_list_has_shipped_models_and_the_users(onnx_file: OnnxFile, tmp_path: Path) -> None:
    """In this order, with the files that are there."""
    before = {entry.card.name: entry for entry in list_models()}
    assert before[CLOUD].path == SHIPPED / CLOUD / "model.onnx"
    assert before["ukis-csmask-6b-5class"].path is None
    assert {entry.origin for entry in before.values()} == {"shipped"}
    card, path = onnx_file()
    write_json(card_to_item(card), tmp_path / "card.json")
    import_model(path, tmp_path / "card.json", name="mine")
    last = list_models()[-1]
    assert (last.card.name, last.origin) == ("mine", "user")


def test_import_makes_a_model_of_file_and_card(onnx_file: OnnxFile, tmp_path: Path) -> None:
    """From then on it is found by name and by its file."""
    card, path = onnx_file(activation="softmax", layout="NHWC")
    fields = card.model_dump(mode="json", exclude={"sha256", "weights"})
    write_json(fields, tmp_path / "plain.json")
    ref = import_model(path, tmp_path / "plain.json", name="field-model")
    assert ref == resolve("field-model") == resolve(ref.path)
    assert resolve(path).card == ref.card
    assert ref.path == data_home() / "models" / "field-model" / "model.onnx"
    assert load(ref).predict(np.zeros((3, 8, 9), np.float32)).shape == (4, 8, 9)
    with pytest.raises(ModelError, match="there is a model field-model already"):
        import_model(path, tmp_path / "plain.json", name="field-model")
    with pytest.raises(ModelError, match=f"there is a model {CLOUD} already"):
        import_model(path, tmp_path / "plain.json", name=CLOUD)
    with pytest.raises(ModelError, match="name: String should match pattern"):
        import_model(path, tmp_path / "plain.json", name="../up")


def test_import_of_a_network(torch_file: TorchFile, tmp_path: Path) -> None:
    """Weights of ours go the same way; a card of another digest does not."""
    _, card, path = torch_file()
    write_json(card_to_item(card), tmp_path / "card.json")
    assert import_model(path, tmp_path / "card.json").card == card
    write_json(card_to_item(card.model_copy(update={"sha256": "0" * 64})), tmp_path / "card.json")
    with pytest.raises(ModelError, match="card says sha256 0000"):
        import_model(path, tmp_path / "card.json", name="other")


def test_a_failed_import_leaves_nothing(onnx_file: OnnxFile, tmp_path: Path, home: Path) -> None:
    """A card that contradicts its file, or promises probabilities that are none."""
    card, path = onnx_file()
    for changes in ({"bands": ("red",)}, {"activation": "softmax"}):
        wrong = card.model_copy(update=changes)
        write_json(card_to_item(wrong), tmp_path / "card.json")
        with pytest.raises(ModelError):
            import_model(path, tmp_path / "card.json")
    assert list((home / "models").iterdir()) == []


def test_import_says_where_it_cannot_write(onnx_file: OnnxFile, tmp_path: Path) -> None:
    """A file stands where the registry should be."""
    card, path = onnx_file()
    write_json(card_to_item(card), tmp_path / "card.json")
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        import_model(path, tmp_path / "card.json", home=tmp_path / "blocked")


def test_a_measured_halo_is_kept_in_the_card(torch_file: TorchFile) -> None:
    """Of a folder of the user's, in its model.json."""
    _, card, path = torch_file()
    save_card(card, path.parent)
    ref = update_card(resolve(path.parent), halo=96, metrics={"probe": 0.5})
    assert ref == resolve(path.parent)
    assert read_card(path.parent / "model.json").halo == 96
    assert ref.card.default_halo == 96


def test_a_measured_halo_of_a_shipped_card_is_kept_beside_it(home: Path) -> None:
    """The package's folder stays as it is; later changes add to earlier ones."""
    before = (SHIPPED / CLOUD / "model.json").read_bytes()
    ref = update_card(resolve(CLOUD), halo=28)
    assert ref == resolve(CLOUD)
    update_card(resolve(CLOUD), temperature=1.5)
    card = resolve(CLOUD).card
    assert (card.halo, card.temperature) == (28, 1.5)
    assert next(e.card for e in list_models() if e.card.name == CLOUD) == card
    assert (SHIPPED / CLOUD / "model.json").read_bytes() == before
    assert card_store(ref) == home / "measured" / f"{card.sha256}.json"
    assert json.loads(card_store(ref).read_text())["halo"] == 28


def test_only_what_is_measured_can_be_updated(tmp_path: Path) -> None:
    """And only to what a card can hold, where it can be written."""
    ref = resolve(CLOUD)
    with pytest.raises(ModelError, match=r"of a card only halo, .* are measured, got bands"):
        update_card(ref, bands=("red",))
    with pytest.raises(ModelError, match="temperature: Input should be greater than 0"):
        update_card(ref, temperature=0)
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        update_card(ref, home=tmp_path / "blocked", halo=28)
    with pytest.raises(OutputError, match="cannot be written"):
        save_card(ref.card, tmp_path / "none")


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TILEMAP_HOME, then XDG_DATA_HOME, then the usual place."""
    assert data_home() == tmp_path / "home"
    monkeypatch.delenv("TILEMAP_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_home() == tmp_path / "xdg" / "tilemap"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_home() == Path.home() / ".local" / "share" / "tilemap"


def test_registry_imports_no_runtime() -> None:
    """Listing models must not wait for torch."""
    code = (
        "import sys, tilemap.models.registry; "
        "print({'torch', 'onnxruntime', 'dask', 'rasterio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """With what the system says."""
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        file_sha256(tmp_path)
