"""Photographs in files: formats, ICC, EXIF, depth, painting and strokes."""

from colorjax.photo.files import (
    SUFFIXES,
    Photo,
    UnreadablePhoto,
    UnwritablePhoto,
    output_format,
    read,
    read_bytes,
    to_rgb8,
    with_depth,
    write,
)

__all__ = [
    'SUFFIXES',
    'Photo',
    'UnreadablePhoto',
    'UnwritablePhoto',
    'output_format',
    'read',
    'read_bytes',
    'to_rgb8',
    'with_depth',
    'write',
]
