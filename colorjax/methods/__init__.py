"""Colorization methods; each file has a `build(**settings) -> Colorizer`."""
