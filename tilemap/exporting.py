"""A model to another form: ONNX, int8, fewer channels; through the parity gate, on real pixels."""

from __future__ import annotations
