"""Seeded mutants of every kind of input, run against the command line in processes with limits."""
