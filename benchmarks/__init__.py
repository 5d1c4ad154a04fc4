"""What the backfill is measured by: see README.md beside this file."""
