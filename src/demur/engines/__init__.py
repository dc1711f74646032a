"""The guard inside engines that serve models. One package an engine."""
