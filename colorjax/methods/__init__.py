"""Colorization methods: one file each, `build(**settings) -> Colorizer`."""
