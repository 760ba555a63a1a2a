"""Pretrained image classifiers: networks, weights of files, preprocessing."""

from colorjax.backbones.backbone import (
  NAMES,
  Backbone,
  build,
  read_class_names,
)

__all__ = ['NAMES', 'Backbone', 'build', 'read_class_names']
