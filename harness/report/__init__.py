"""One self-contained page about an experiment, from its stored results alone."""
