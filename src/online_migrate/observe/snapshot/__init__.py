"""One frozen picture of a run, read from its journal."""
