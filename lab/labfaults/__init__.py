"""What the lab says when the lab itself breaks: faults made on purpose in the middle of driver
tests, none of which may be blamed on the driver."""
