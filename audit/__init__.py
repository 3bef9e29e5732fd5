"""What happened, provably: an append-only log, its proofs, and evidence a stranger can check."""
