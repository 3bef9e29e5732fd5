"""What changed in the tables, one file for each time."""
