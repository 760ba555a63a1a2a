"""Baselines: methods that need no training."""
