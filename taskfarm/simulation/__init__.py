"""A simulation of the farm in virtual time."""
