"""One file per kind of step."""
