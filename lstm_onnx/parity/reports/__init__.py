"""Formats a report for a terminal, for CI servers, for GitHub and for a browser.

The texts are in `content`; the other modules arrange them.
"""
