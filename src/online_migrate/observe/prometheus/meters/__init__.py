"""Meters: each turns events, snapshots or readings into the series of one group of metrics."""
