"""The gate: from a run's record to a verdict and an exit code."""
