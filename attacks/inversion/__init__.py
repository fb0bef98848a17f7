"""Model inversion: from a global model to images of labels that others hold (Wu et al. 2024, FedInverse)."""
