"""The contract of every operation, and nothing else."""
