"""Nights: what runs unattended, in what order, and what is told of it in the morning."""
