"""Tables and artifacts."""
