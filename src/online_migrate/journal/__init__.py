"""The memory of a run, in the schema online_migrate of the target database."""
