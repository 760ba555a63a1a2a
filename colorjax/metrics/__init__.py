"""Metrics of colorings. Every variant of a metric has its own name."""
