"""Conformance kits for plug-ins."""
