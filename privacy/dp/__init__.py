"""Differential privacy: mechanisms, their events, and what they cost a patient."""
