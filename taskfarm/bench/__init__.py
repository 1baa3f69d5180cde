"""Measuring what an allocation can do."""
