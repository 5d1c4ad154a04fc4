"""What a database says about a plan."""
