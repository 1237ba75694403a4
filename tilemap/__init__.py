"""tilemap: scenes of billions of pixels to land-cover maps."""
