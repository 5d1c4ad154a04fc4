"""Moving many rows gently: which rows come next (chunks), how many and when (pacer), what holds us (throttlers)."""
