"""Everything that shows a run: bars, summary, status file, trace and report."""
