"""Every byte that is read or written."""

import pyproj.network

# Whoever has loaded pyproj before tilemap has let it read PROJ_NETWORK as it was.
pyproj.network.set_network_enabled(False)  # type: ignore[attr-defined]  # only re-exported
