"""What a finished run prints and leaves to look at."""

import dataclasses
import json

FIGURES_FILE = 'report/metrics.json'

def write(workdir, colorizer, variables, photos, summary):
  print(summary)
  (workdir/'report').mkdir(exist_ok=True)
  (workdir/FIGURES_FILE).write_text(json.dumps({k: dataclasses.asdict(v) for k,v in summary.items()}))

def image_hook(colorizer, photos):
  return None
