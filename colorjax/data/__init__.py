"""Photographs to batches: sources, order, augmentation, streams."""
