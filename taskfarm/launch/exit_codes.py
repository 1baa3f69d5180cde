"""Exit codes of ``python -m taskfarm``, besides the job's own."""

WRONG_USE = 2
"""A wrong option, file or value, found before any work started."""

LOSSES = 3
"""Workers were lost, with ``--fail-on-loss``."""

UNSEEN = 4
"""Tasks failed and the job did not look, with ``--fail-on-unseen``."""

DRAINED = 75
"""The time was up; the run can be resumed. EX_TEMPFAIL of sysexits.h."""

INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as shells count."""
