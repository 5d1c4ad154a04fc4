"""One frozen picture of a run, read from its journal: what the terminal, the metrics and the page draw."""
