"""Programs that start as forks of a process that has imported what they need.

A block of code on a page, or a command, is a process of its own: its arguments, environment, folder, standard streams
and exit code are those of a fresh interpreter.  Only its imports, which take up to four seconds, are done already.
"""
