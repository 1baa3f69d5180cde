"""The HTML report: its recorder, its charts and its page."""
