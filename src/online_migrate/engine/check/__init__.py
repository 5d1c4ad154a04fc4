"""check: everything that is wrong, risky or open, found at once.  Reads only."""
