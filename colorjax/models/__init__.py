"""Network architectures, independent of losses and color conversions."""
