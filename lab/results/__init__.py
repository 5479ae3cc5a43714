"""Results: the record of a run, how it is kept, and how people read it."""
