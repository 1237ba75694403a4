"""The stages of a run: tile, segment, stitch, export. Per file a pure kernel and a thin driver."""
