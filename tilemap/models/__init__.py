"""Models: cards, networks, and one file per backend behind one protocol."""

import os

# ONNX Runtime takes this from the environment when it is loaded. Without it the Linux wheel writes
# a device id into the home folder and reports to a host that nobody has named.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
