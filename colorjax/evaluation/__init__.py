"""Evaluation of any method, and of the pictures of any other program.

  answers          what is evaluated: pictures, proposals, samples, densities
  catalogue        METRICS: every metric by name
  region_metrics   how well a method follows the regions that it is given
  measuring        runs all metrics over a set of photographs
  protocol         which photographs, in which order, cropped or squashed
  listing          how a protocol selects its photographs, and their hash
  pairing          finds the pictures that another program made of photographs
  near_duplicates  test photographs that are in the training set too
  result           the files that an evaluation writes
  comparison       several results in one table
"""
