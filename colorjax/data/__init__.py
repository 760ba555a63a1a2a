"""From photographs to batches: sources, order, augmentation, streams."""
