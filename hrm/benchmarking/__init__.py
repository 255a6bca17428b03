"""How fast: whole updates beside bare matrix products, serving beside the fastest plain loop."""
