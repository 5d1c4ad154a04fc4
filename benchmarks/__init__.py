"""Benchmarks of the backfill, the locks and the exporter; see README.md in this folder."""
