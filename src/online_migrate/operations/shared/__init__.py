"""What several operations use."""
