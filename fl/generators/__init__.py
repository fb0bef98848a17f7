"""Generators of images, trained on public data or loaded: priors of attacks and of defenses.

Importing this imports neither torch nor numpy.
"""

from __future__ import annotations

from fl.generators.config import GeneratorConfig, generator_stage, generator_unfit

__all__ = ["GeneratorConfig", "generator_stage", "generator_unfit"]
