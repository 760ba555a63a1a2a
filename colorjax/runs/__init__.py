"""Complete runs as functions of plain arguments: train, evaluate, compare."""
