"""The models that come with colorjax."""

import pathlib
import re

import numpy as np
import pytest
import skimage.color
import skimage.data

import colorjax
from colorjax import saved, zoo
from colorjax.errors import UserError

MAX_BYTES = 12e6  # of all models together


@pytest.mark.parametrize('name', zoo.MODELS)
def test_a_model_colors_a_photograph(name):
  photograph = skimage.data.chelsea()
  found = colorjax.colorize(photograph, model=name)
  assert found.pixels.shape == photograph.shape
  lab = skimage.color.rgb2lab(found.pixels)
  # A cat is neither grey nor blue.
  assert np.hypot(lab[..., 1], lab[..., 2]).mean() > 4
  assert lab[..., 2].mean() > 2


@pytest.mark.parametrize('name', zoo.MODELS)
def test_a_card_says_what_a_user_must_know(name):
  card = zoo.card(name)
  for what in ('Trained on', 'non-commercial', 'Command', 'Commit', 'Figures',
               'does badly'):
    assert what in card, f'{what} is missing in the card of {name}'
  (commit,) = re.findall(r'[Cc]ommit.*?\b([0-9a-f]{40})\b', card)
  record, _, _ = saved._read_model(zoo.path(name))
  assert commit == record.commit


def test_the_models_are_small_and_need_no_encoder_of_their_own():
  files = [zoo.path(name) for name in zoo.MODELS]
  assert sum(file.stat().st_size for file in files) < MAX_BYTES


def test_every_file_is_in_the_wheel():
  folder = pathlib.Path(zoo.__file__).parent
  names = {path.name for path in folder.iterdir()
           if path.suffix in ('.safetensors', '.md')}
  assert names == {f'{name}{suffix}' for name in zoo.MODELS
                   for suffix in ('.safetensors', '.md')}
  settings = (folder.parents[1] / 'setup.cfg').read_text()
  listed = settings.partition('colorjax.zoo =')[2].split()[:2]
  assert listed == ['*.safetensors', '*.md']


def test_unknown_models_are_refused():
  with pytest.raises(UserError, match='model=best: choose one of general'):
    zoo.path('best')
  with pytest.raises(UserError, match='give only one'):
    colorjax.colorize(np.zeros((8, 8), np.uint8), model='general',
                      checkpoint='runs/mine')
