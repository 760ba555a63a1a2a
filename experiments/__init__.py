"""Experiment scripts: the only modules that define flags."""
