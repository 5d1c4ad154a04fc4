"""Moving many rows gently."""
