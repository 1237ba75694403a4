"""The command line: arguments to settings to one call."""
