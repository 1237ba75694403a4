"""Evaluation: a map against a reference, streamed, with figures that do not depend on the tiles."""
