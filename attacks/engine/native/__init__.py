"""An optional native kernel for gradient matching under L-BFGS on small smooth models.

One task at a time, in one thread, so that its history of steps stays in the processor's cache; no padding,
no companions. Where it cannot be used, the formulations of `attacks.engine` are.
"""
