"""The hospital's side. It answers to the hospital, not to the coordinator."""
