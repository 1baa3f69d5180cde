"""Views of a run: progress bars, summary, status file, trace and report."""
