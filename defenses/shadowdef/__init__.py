"""ShadowDef: noise on the training images, most where a generator that imitates an attacker succeeds.

Source: Jiang, Ma, Yang 2025, Medical Image Analysis 103673, arXiv 2506.15711, through its authors' code
(tekap404/ShadowDef at dcfd896), corrected where that cannot do what it says. Every such defect is an option
(`defenses.cards_shadowdef`); `docs/defenses/shadowdef.md` lists them.

A training batch goes through `rehearsal` (what the update would give away), `inversion` (the shadow generator
learns to reconstruct it), `vulnerability` (where it succeeds), `saliency` (where the classifier looks) and
`injection` (the noise). `client` holds the state, `adversary` is the attacker who knows all this.
"""
