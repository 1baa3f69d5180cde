"""The journal: outcomes on disk, from which a later run resumes."""
