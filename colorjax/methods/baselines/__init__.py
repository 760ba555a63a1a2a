"""Methods that need no training: what a trained method has to beat."""
