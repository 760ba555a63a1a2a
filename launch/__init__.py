"""Flagfiles and launchers; nothing here imports JAX."""
