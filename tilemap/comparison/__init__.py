"""The kernels of change: numbers of several dates in, what changed out; no files, no clusters."""
