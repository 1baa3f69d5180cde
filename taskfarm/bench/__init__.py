"""Measures the performance of an allocation."""
