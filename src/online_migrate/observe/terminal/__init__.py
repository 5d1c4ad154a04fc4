"""A run on a terminal, and in the lines of a log."""
