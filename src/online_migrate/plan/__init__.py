"""What the user asked for: the plan's text, model and expansion.  Never touches a database."""
