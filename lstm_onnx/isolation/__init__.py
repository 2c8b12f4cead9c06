"""Work on a file from elsewhere in a process of its own, with limits of time and memory.

A single operator can end or hang whoever opens a model, in onnx and in ONNX Runtime: no exception comes of
that, and no list of such operators is complete.  `process.Child` calls a function in a fresh interpreter and
gives its result, or says how the process ended, and in which stage of the work.  `supervision.supervised` runs
a whole command so, with this process's own input and output.  `stages` is for the work itself, wherever it runs.

Only Python's standard library is imported here; the child imports what its function needs.
"""
