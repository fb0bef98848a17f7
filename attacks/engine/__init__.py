"""The vectorized solver of gradient matching: many targets side by side, as lanes of one batch.

A lane is a row of every tensor: its own weights, observed update, labels, variables and optimizer state. Rows
never meet in an operation, and the width of the batch is fixed, so a result does not depend on what else is
being solved. `attacks.matching` is the plain loop, the oracle of everything here.
"""
