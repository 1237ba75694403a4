"""Discovery: folders, globs, STAC."""
