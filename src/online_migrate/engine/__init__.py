"""Walks the stages and steps of a plan."""
