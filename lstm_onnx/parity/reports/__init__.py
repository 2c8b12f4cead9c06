"""A report for those who read it: people at a terminal, CI servers, GitHub, and a browser.

What is said, and in which words, is in `content`; the other modules only lay it out.
"""
