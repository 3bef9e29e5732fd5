"""How the clipped sum of patients' gradients is computed: one interface, five engines, one choice.

Which engine runs changes what a step costs, never what it gives: each equals `loop` to 1e-5, and that is tried on the
study's own network before a hospital takes part.
"""
