"""Fill many rows gently: which rows come next (chunks), how many (pacer), when to hold (throttlers)."""
