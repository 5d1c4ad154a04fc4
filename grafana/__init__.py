"""The dashboard's source; ``python -m grafana.dashboard`` writes its JSON."""
