"""Rank 0 at work: it feeds the scheduler, carries out its decisions and hands out the results."""
