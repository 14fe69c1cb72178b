"""What this package assumes about RLlib, as tests of RLlib alone.

Nothing of the package is imported, so that these tests run with a Ray that the package refuses.
Where one fails, its message says what was assumed and where that is relied upon (below
`rllib_attention/`). Private names are listed in `compat/`.
"""
