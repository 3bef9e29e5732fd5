"""Secure aggregation: the coordinator learns the sum of the encoded updates and nothing else."""
