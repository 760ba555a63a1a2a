"""Benchmarks: scripts that measure the speed of colorjax."""
