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


def test_general_colors_a_photograph():
  photograph = skimage.data.chelsea()
  found = colorjax.colorize(photograph, model='general')
  assert found.pixels.shape == photograph.shape
  lab = skimage.color.rgb2lab(found.pixels)
  # A cat is neither grey nor blue.
  assert np.hypot(lab[..., 1], lab[..., 2]).mean() > 4
  assert lab[..., 2].mean() > 2


def test_diverse_has_eight_colorings_with_probabilities():
  photograph = skimage.data.coffee()[::2, ::2]
  found = colorjax.colorize(photograph, model='diverse', proposals=8)
  assert len(found.proposals) == 8
  assert found.probabilities == sorted(found.probabilities, reverse=True)
  assert sum(found.probabilities) == pytest.approx(1, abs=1e-4)
  ab = [skimage.color.rgb2lab(one)[..., 1:] for one in found.proposals]
  for i in range(8):
    for other in ab[:i]:
      assert np.linalg.norm(ab[i] - other, axis=-1).mean() > 3
  with pytest.raises(UserError, match='ask for 1 to 8'):
    colorjax.colorize(photograph, model='diverse', proposals=9)


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
  with pytest.raises(
      UserError, match='model=best: choose one of general, diverse'):
    zoo.path('best')
  with pytest.raises(UserError, match='give only one'):
    colorjax.colorize(np.zeros((8, 8), np.uint8), model='general',
                      checkpoint='runs/mine')
