"""Evidence: what a test leaves behind, written piece by piece as it arrives."""
