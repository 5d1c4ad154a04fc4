"""The legacy shop, its traffic, and the report."""
