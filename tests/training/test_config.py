from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tilemap.errors import ConfigError
from tilemap.models.networks import PACKAGED
from tilemap.training.config import load_config, parse_config
from tilemap.training.split import Split

PLAIN = """
name = "roofs"
seed = 4
ignore_labels = [3]

[[scenes]]
files = ["rgb.tif", "/data/nir.tif"]
labels = "roofs.gpkg"
background = "other"

[[classes]]
name = "other"
value = 0

[[classes]]
name = "roof"
value = 7
labels = ["a", 1]
color = "#c0392b"

[model]
arch = "unet"
encoder = "resnet18"
width = 32
weights = "resnet18.pth"

[loss]
weights = [1, 2.5]
"""


def test_a_configuration_is_read_with_paths_and_defaults(tmp_path: Path) -> None:
    """Paths start from the file's folder; keys of the model that are none of ours go to it."""
    (tmp_path / "train.toml").write_text(PLAIN)
    config = load_config(tmp_path / "train.toml")
    scene = config.scenes[0]
    assert scene.files == (str(tmp_path / "rgb.tif"), "/data/nir.tif")
    assert scene.labels == str(tmp_path / "roofs.gpkg")
    assert config.model.weights == str(tmp_path / "resnet18.pth")
    assert config.model.architecture == {"name": "unet", "encoder": "resnet18", "width": 32}
    assert config.blocks == Split(256, 0.2, 0.2, seed=4)
    assert [c.meanings for c in config.classes] == [(0,), ("a", 1)]
    assert [c.color for c in config.class_infos][1] == "#c0392b"
    assert config.class_infos[0].color != config.class_infos[1].color
    assert config.loss.weights == (1.0, 2.5)


def test_packaged_weights_are_a_word(tmp_path: Path) -> None:
    """The name of the package's weights is no path."""
    (tmp_path / "train.toml").write_text(PLAIN.replace("resnet18.pth", "efficientnet-lite0"))
    assert load_config(tmp_path / "train.toml").model.weights == PACKAGED


def test_a_teacher_is_a_path_only_if_it_is_there(tmp_path: Path) -> None:
    """A name of the registry stays a name."""
    table = tomllib.loads(PLAIN) | {"distillation": {"teacher": "strict"}}
    named = parse_config(table, tmp_path)
    (tmp_path / "strict").mkdir()
    found = parse_config(table, tmp_path)
    assert named.distillation is not None
    assert found.distillation is not None
    assert named.distillation.teacher == "strict"
    assert found.distillation.teacher == str(tmp_path / "strict")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"roofs"', '"Roofs here"', "name: string should match"),
        ("files =", "flies =", r"scenes\[0\].flies is no key that is known; did you mean 'files'"),
        ("[loss]", "[los]", "los is no key that is known; did you mean 'loss'"),
        ("width = 32", "width = [3]", r"model.width: .* got \[3\]"),
        ("value = 7", "value = 0", "the values of classes must differ, got 0 twice"),
        ("value = 7", "value = 255", r"classes\[1\].value: .* got 255"),
        ('background = "other"', 'background = "o"', "one of the classes other, roof, got 'o'"),
        ('labels = "roofs.gpkg"', "", "background says something about labels, but there is no"),
        ("[1, 2.5]", "[1]", r"one number per class \(2\), got 1"),
        ("[1, 2.5]", '"much"', "loss.weights: input should be 'none' or 'balanced', got 'much'"),
        ("ignore_labels = [3]", "ignore_labels = [1]", "1 means several"),
        ('name = "other"', "", r"classes\[0\].name must be given$"),
        ("[loss]", "[split]\ntest = 1.0\n[loss]", "split.test: .* got 1.0"),
        ("[loss]", "[split]\ntest = 0.6\nvalidation = 0.4\n[loss]", r"must be below 1"),
        ("[loss]", "[augment]\nscale = [2, 1]\n[loss]", "two ascending numbers"),
        ("[loss]", "[training]\ndevice = 'tpu'\n[loss]", "training.device"),
        ('labels = "roofs.gpkg"', 'labels = "r"\nresolution = -1', "resolution must be above 0"),
        (
            'labels = "roofs.gpkg"',
            'labels = "r"\nlayer = "x"\narea_split = "p"',
            "there is no area",
        ),
    ],
)
def test_what_cannot_hold_is_told_in_a_line(old: str, new: str, message: str) -> None:
    """Each names the key, what must hold and what came; one line."""
    assert old in PLAIN
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config(tomllib.loads(PLAIN.replace(old, new, 1)), Path("/x"), "train.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("train.toml: ")
    assert caught.value.exit_code == 78


def test_a_scene_needs_labels_or_a_teacher() -> None:
    """Without either there is nothing to learn."""
    table: dict[str, Any] = tomllib.loads(PLAIN)
    table["scenes"] = [{"files": ["a.tif"]}]
    with pytest.raises(ConfigError, match="must have labels"):
        parse_config(table, Path("/x"))
    assert parse_config(table | {"distillation": {"teacher": "m"}}, Path("/x"))


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    """A missing file and one that is not TOML are told."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(tmp_path / "bad.toml")
