"""A report for its readers: people at a terminal, CI servers, GitHub, and a browser.

The texts are in `content`; the other modules lay them out.
"""
