"""A moving average of the weights: smoother, and mostly better, than the last of them."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """A second network whose weights and running statistics follow those of the first.

    ``average += (1 - d) * (now - average)`` with ``d = min(decay, (1 + n) / (10 + n))`` after n
    steps, so that the random beginning is soon forgotten. Counters are taken over as they are.

    Args:
        network: the one that is trained; its state is where the average begins.
        decay: 0 to below 1; the mean reaches about ``1 / (1 - decay)`` steps back.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Take one step's weights in.

        Args:
            network: the one that is trained.
            step: steps done, this one included, 1 or more.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        now = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 1 - decay)
            else:
                value.copy_(now[name])
