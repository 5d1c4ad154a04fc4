"""What would stop, spoil or slow a backfill, read from the catalog before the first row is written."""
