"""Products and catalog at a second place, such as a bucket: whole there too, and never ahead."""
