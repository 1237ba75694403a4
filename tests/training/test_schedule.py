"""The learning rate against torch's schedulers and its own promises; the moving average."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tilemap.errors import ConfigError
from tilemap.training.ema import Average
from tilemap.training.schedule import Schedule


@given(st.integers(10, 60), st.sampled_from([0.15, 0.25, 0.3, 0.5]))
def test_onecycle_is_torchs(steps: int, warmup: float) -> None:
    """Step by step."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, steps, pct_start=warmup)
    ours = Schedule("onecycle", 0.02, steps, warmup)
    for step in range(steps):
        assert ours.rate(step) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        if step + 1 < steps:
            theirs.step()


@given(st.integers(1, 200), st.floats(0, 0.9))
def test_cosine_rises_to_the_peak_and_falls(steps: int, warmup: float) -> None:
    """Never 0, never above the peak, one summit; the fall is torch's cosine."""
    ours = Schedule("cosine", 3e-3, steps, warmup)
    rates = [ours.rate(step) for step in range(steps)]
    assert all(0 < rate <= 3e-3 * (1 + 1e-12) for rate in rates)
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(3e-3)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps - top)
    for rate in rates[top:]:
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("name", ["cosine", "onecycle"])
def test_one_step_has_a_rate(name: str) -> None:
    """The shortest training there is, with and without warmup."""
    for warmup in (0.0, 0.5):
        assert Schedule(name, 0.1, 1, warmup).rate(0) == pytest.approx(0.1)


def test_an_unknown_schedule() -> None:
    """Says what there is."""
    with pytest.raises(ConfigError, match="cosine or onecycle, got 'steps'"):
        Schedule("steps", 0.1, 10)


def test_the_average_is_the_recursion() -> None:
    """By hand in float64, running statistics included; the counter is the network's."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = Average(network, 0.6)
    by_hand = {name: value.double() for name, value in copy.deepcopy(network.state_dict()).items()}
    for step in range(1, 8):
        network(torch.randn(2, 2, 4, 4))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.follow(network, step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            by_hand[name] = decay * by_hand[name] + (1 - decay) * value.double()
    state = average.network.state_dict()
    assert state.pop("1.num_batches_tracked") == 7
    for name, value in state.items():
        torch.testing.assert_close(value.double(), by_hand[name], rtol=1e-5, atol=1e-6)
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())
