"""Photographs in files: formats, ICC, EXIF, depth, painting and strokes."""

from colorjax.photo.files import (
    SUFFIXES,
    NotEnoughMemory,
    Photo,
    UnreadablePhoto,
    UnwritablePhoto,
    check_fits,
    is_out_of_memory,
    out_of_memory,
    output_format,
    read,
    read_bytes,
    to_rgb8,
    with_depth,
    write,
)

__all__ = [
    'SUFFIXES',
    'NotEnoughMemory',
    'Photo',
    'UnreadablePhoto',
    'UnwritablePhoto',
    'check_fits',
    'is_out_of_memory',
    'out_of_memory',
    'output_format',
    'read',
    'read_bytes',
    'to_rgb8',
    'with_depth',
    'write',
]
