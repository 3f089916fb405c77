"""The worker's parts, each alone."""
