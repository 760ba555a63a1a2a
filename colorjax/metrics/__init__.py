"""Figures of merit; every variant stands under its own name."""
