"""Which build brought a defect that shows only sometimes."""
