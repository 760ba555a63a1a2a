"""The training step of the default MBM network in PyTorch, to compare speeds.

`experiments.benchmarks.pytorch` runs this file with a Python that has PyTorch;
it needs nothing else. It is eager PyTorch with channels_last tensors. The
optimizer, the gradient clipping and the moving average are PyTorch's fastest on
a CPU (`foreach`). Lightness and ab are made once, whereas the step of colorjax
computes them from pixels each time.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

FILTERS = (32, 64, 128, 256)
COMPONENTS = 8
PRIOR_WIDTH = 128


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions with pre-activation group norm."""

  def __init__(self, inputs: int, width: int):
    """Creates the layers of a block from `inputs` to `width` channels."""
    super().__init__()
    self.shortcut = (nn.Identity() if inputs == width
                     else nn.Conv2d(inputs, width, 1, bias=False))
    self.norm_1 = nn.GroupNorm(inputs // 16, inputs)
    self.conv_1 = nn.Conv2d(inputs, width, 3, padding=1)
    self.norm_2 = nn.GroupNorm(width // 16, width)
    self.conv_2 = nn.Conv2d(width, width, 3, padding=1)

  def forward(self, x):
    """[B, C, h, w] to [B, width, h, w]."""
    y = self.conv_1(functional.silu(self.norm_1(x)))
    return self.shortcut(x) + self.conv_2(functional.silu(self.norm_2(y)))


class MBM(nn.Module):
  """U-Net with a head for the components and a pooled head for the priors."""

  def __init__(self):
    """Creates the layers."""
    super().__init__()
    first, *rest = FILTERS
    self.stem = nn.Conv2d(1, first, 4, 2, padding=1)
    self.down = nn.ModuleList(
        nn.Conv2d(a, b, 2, 2) for a, b in zip(FILTERS, rest, strict=False))
    self.encoder = nn.ModuleList(ResidualBlock(w, w) for w in FILTERS)
    self.decoder = nn.ModuleList(
        ResidualBlock(a + b, a) for a, b in zip(FILTERS, rest, strict=False))
    self.last_norm = nn.GroupNorm(first // 16, first)
    self.head = nn.Conv2d(first, 2 * COMPONENTS, 3, padding=1)
    self.prior_norms = nn.ModuleList(
        nn.GroupNorm(w // 16, w) for w in FILTERS)
    self.prior = nn.Sequential(
        nn.Dropout(), nn.Linear(sum(FILTERS), PRIOR_WIDTH), nn.SiLU(),
        nn.Dropout(), nn.Linear(PRIOR_WIDTH, COMPONENTS))

  def forward(self, lightness):
    """[B, 1, H, W] to logits [B, K, 2, H/2, W/2] and mixing logits [B, K]."""
    x = self.stem(lightness)
    scales = []
    for level, block in enumerate(self.encoder):
      if level:
        x = self.down[level - 1](x)
      x = block(x)
      scales.append(x)
    pooled = [functional.silu(norm(s)).mean((2, 3))
              for norm, s in zip(self.prior_norms, scales, strict=True)]
    mixing = self.prior(torch.cat(pooled, 1))
    for skip, block in zip(scales[-2::-1], list(self.decoder)[::-1],
                           strict=True):
      x = functional.interpolate(x, scale_factor=2.0, mode='nearest')
      x = block(torch.cat([x, skip], 1))
    x = self.head(functional.silu(self.last_norm(x)))
    return x.unflatten(1, (COMPONENTS, 2)), mixing


def loss_of(logits, mixing, targets):
  """Mean negative log-likelihood per value of a Bernoulli mixture."""
  log_probs = -functional.binary_cross_entropy_with_logits(
      logits, targets[:, None].expand_as(logits), reduction='none')
  joint = mixing.log_softmax(1) + log_probs.sum((2, 3, 4))
  return -joint.logsumexp(1).mean() / targets[0].numel()


def main():
  """Prints PyTorch's version, images per second, and number of parameters."""
  parser = argparse.ArgumentParser()
  for name, default in (('batch_size', 32), ('image_size', 64), ('steps', 10)):
    parser.add_argument(f'--{name}', type=int, default=default)
  options = parser.parse_args()
  batch_size, size = options.batch_size, options.image_size
  torch.manual_seed(0)
  network = MBM().to(memory_format=torch.channels_last)
  parameters = list(network.parameters())
  averages = [p.detach().clone() for p in parameters]
  optimizer = torch.optim.AdamW(
      parameters, lr=1e-3, weight_decay=0.01, foreach=True)
  lightness = torch.rand(batch_size, 1, size, size).mul(2).sub(1)
  targets = torch.rand(batch_size, 2, size // 2, size // 2)
  lightness = lightness.contiguous(memory_format=torch.channels_last)
  targets = targets.contiguous(memory_format=torch.channels_last)
  times = []
  for _ in range(options.steps + 2):
    start = time.perf_counter()
    optimizer.zero_grad()
    logits, mixing = network(lightness)
    loss = loss_of(logits, mixing, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_(averages, parameters, 0.005)
    loss.item()
    times.append(time.perf_counter() - start)
  print(torch.__version__, batch_size / statistics.median(times[2:]),
        sum(p.numel() for p in parameters))


if __name__ == '__main__':
  main()
