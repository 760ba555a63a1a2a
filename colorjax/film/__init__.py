"""Imitations of old photographs: the lightness of a scan, from a photograph.

A scan of an old print is not the L of a color photograph. The emulsion saw
other colors than an eye does, the print has its own contrast, and it has faded.

`family` is what networks are trained with, made of `parts` and `jpeg`.
`held_out` has a few other imitations. They share no part with the family, so
that a network is measured on damage that it has not seen.
"""
