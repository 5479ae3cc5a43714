"""Mutants: drivers with a known defect, and whether the suite finds it."""
