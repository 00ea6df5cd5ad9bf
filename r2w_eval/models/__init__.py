"""Models that answer: endpoints over HTTP, checkpoints in this process; their cache and cost."""
