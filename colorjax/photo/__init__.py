"""Photographs in files: formats, ICC, EXIF, bit depth, painting and strokes."""

from colorjax.photo.photo_files import (
    NOT_READ,
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
    size,
    to_rgb8,
    with_depth,
    write,
)

__all__ = [
    'NOT_READ',
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
    'size',
    'to_rgb8',
    'with_depth',
    'write',
]
