"""Measuring any method, or the pictures of any program, on one footing.

  answers     what is judged: pictures, proposals, samples, densities
  catalogue   METRICS: every figure of merit, one line each
  regions     how a method heeds the regions that it is asked to color
  measuring   each photograph once, in any batches, on any devices
  protocol    which photographs, in which order, cut how: named and versioned
  result      what an evaluation leaves on disk
  comparison  results of one protocol in one table
"""
