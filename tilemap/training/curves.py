"""``curves.png``: how loss and IoU went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilemap.training.checkpoint import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#2f6f9f", "#1b1b1b")
_GRID = "#dddddd"


def draw_curves(
    lines: list[dict[str, Any]], colors: dict[str, str], kept_step: int | None, path: Path
) -> None:
    """Draw the history of a training as a PNG.

    Args:
        lines: of the history, see ``history.History``.
        colors: "#rrggbb" by class name.
        kept_step: whose weights were kept by validation, if any.
        path: of the PNG.

    Raises:
        OutputError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _losses(upper, [line for line in lines if "loss" in line])
    _scores(lower, [line for line in lines if "miou" in line], colors, kept_step)
    replace_file(path, lambda partial: figure.savefig(partial, format="png", dpi=110))


def _plain(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _losses(axes: Axes, told: list[dict[str, Any]]) -> None:
    """Each line's mean loss, pale, and a moving mean over a twentieth of them."""
    steps = [line["step"] for line in told]
    losses = [line["loss"] for line in told]
    width = max(len(losses) // 20, 1)
    smooth = [
        sum(losses[max(i - width, 0) : i + width + 1])
        / len(losses[max(i - width, 0) : i + width + 1])
        for i in range(len(losses))
    ]
    axes.plot(steps, losses, color=_COLOURS[0], alpha=0.3, linewidth=1)
    axes.plot(steps, smooth, color=_COLOURS[0], linewidth=1.8)
    if losses and min(losses) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.3g}")
        axes.yaxis.set_minor_formatter("{x:.3g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    _plain(axes, "loss of training")


def _scores(
    axes: Axes, told: list[dict[str, Any]], colors: dict[str, str], kept_step: int | None
) -> None:
    """IoU of each class in its colour, their mean, and the step whose weights were kept."""
    for name, color in colors.items():
        points = [(line["step"], line["iou"][name]) for line in told if name in line["iou"]]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=".", label=name)
    if told:
        steps, means = [line["step"] for line in told], [line["miou"] for line in told]
        axes.plot(steps, means, color=_COLOURS[1], linewidth=2, marker=".", label="mean")
    if kept_step is not None:
        axes.axvline(kept_step, color=_COLOURS[1], linestyle=":", label=f"kept: step {kept_step}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("step")
    _plain(axes, "IoU on the validation part")
    if told:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
