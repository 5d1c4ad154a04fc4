"""How we talk to PostgreSQL.  Knows nothing of plans."""
