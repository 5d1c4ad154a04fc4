"""Listeners: metrics, logs, progress and pages, all drawn from one snapshot."""
