"""The zoo: classifiers by name, and how a state becomes a module. Importing it does not import torch."""

from fl.models.build import architecture, build, initial_state, materialise, trainable_names
from fl.models.catalog import MODELS

__all__ = ["MODELS", "architecture", "build", "initial_state", "materialise", "trainable_names"]
