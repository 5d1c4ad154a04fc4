"""The metrics of a run, for a Prometheus server to scrape."""
