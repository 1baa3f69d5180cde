"""The HTML report: its recorder, its figures and its page."""
