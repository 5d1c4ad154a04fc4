"""Health readings that can hold a backfill, one file each."""
