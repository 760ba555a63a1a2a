"""Pretrained image classifiers: networks, weights files, preprocessing."""

from colorjax.backbones.backbone import (
  DEFAULT,
  KERAS_NAMES,
  NAMES,
  Backbone,
  Variant,
  build,
  read_class_names,
)
from colorjax.backbones.convert import load, restrict, variant_of
from colorjax.backbones.download import download

__all__ = [
  'DEFAULT',
  'KERAS_NAMES',
  'NAMES',
  'Backbone',
  'Variant',
  'build',
  'download',
  'load',
  'read_class_names',
  'restrict',
  'variant_of',
]
