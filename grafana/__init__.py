"""The source of the dashboards; ``python -m grafana.dashboard`` writes their JSON."""
