"""Experiment scripts: the only place where flags live."""
