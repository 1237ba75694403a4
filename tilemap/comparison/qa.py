"""Bits of a pixel of ``qa.tif``: what a reader of its change should know."""

from __future__ import annotations

from enum import IntFlag


class Qa(IntFlag):
    """Notes on one pixel, added up."""

    FEW = 1
    """Fewer than two dates observed: no change can be told."""
    FIRST = 2
    """Not observed at the first date; its class there is that of the path."""
    LAST = 4
    """Not observed at the last date."""
    SHIFTED = 8
    """Some date was moved to fit, or was accepted though it does not."""
    SLIVER = 16
    """A shift of one pixel can explain the change."""
    PROVISIONAL = 32
    """The change is seen on one date only, the last observed one."""
    SIEVED = 64
    """The change covered less than the minimum mapping unit and is mapped as none."""
    HARD = 128
    """Of some date there were labels only, no probabilities."""
