"""Outcomes on disk, and how a later run resumes from them."""
