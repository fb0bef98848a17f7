"""Optimizers of latent vectors, behind one seam: `ask` for points, `tell` what they were worth."""
