"""``pvlab bench``: what the lab itself costs, measured in one run."""
