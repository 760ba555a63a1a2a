"""Scripts that measure the speed of colorjax on this machine."""
