"""File name endings of photographs, by whether they can be read."""

from colorjax.photo import heif

SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.png', '.apng', '.webp',
            '.bmp', '.tif', '.tiff', '.gif',
            *(heif.SUFFIXES if heif.IS_INSTALLED else ()))
"""File name endings of photographs that can be read, in lower case."""

_AVIF = 'avifdec of libavif'
_JPEG_2000 = 'opj_decompress of OpenJPEG'
_RAW = 'darktable-cli or RawTherapee'
NOT_READ = {
    **({} if heif.IS_INSTALLED else dict.fromkeys(
        heif.SUFFIXES, 'heif-convert of libheif, or install pillow-heif')),
    **dict.fromkeys(('.avif', '.avifs'), _AVIF),
    **dict.fromkeys(('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx', '.jpm'),
                    _JPEG_2000),
    '.jxl': 'djxl of libjxl',
    **dict.fromkeys(('.dng', '.cr2', '.cr3', '.crw', '.nef', '.nrw', '.arw',
                     '.sr2', '.srf', '.orf', '.rw2', '.raf', '.pef', '.srw',
                     '.raw', '.rwl', '.3fr', '.iiq', '.x3f', '.erf', '.kdc',
                     '.mrw', '.dcr'), _RAW),
    **dict.fromkeys(('.psd', '.psb', '.xcf', '.tga', '.ppm', '.pgm', '.pbm',
                     '.pnm', '.pam', '.pcx', '.jxr', '.wdp', '.exr', '.hdr',
                     '.dds', '.sgi', '.qoi'), 'ImageMagick'),
}
"""Endings of image files that cannot be read, each with a program that converts
such files."""
