"""What both sides sign: studies, round plans, identities and the messages that are not secure aggregation."""
