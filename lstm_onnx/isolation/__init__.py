"""Work on untrusted files in a child process, with limits of time and memory.

A single operator can end or hang the process that opens a model, in onnx and in ONNX Runtime, without an exception, and
no list of such operators is complete.  `process.Child` calls a function in a new interpreter and returns its result, or
raises how and in which stage the process ended.  `supervision.supervised` runs a whole command like this, with this
process's input and output.  `stages` is called by the work itself, in any process.

Only Python's standard library is imported here; the child imports what its function needs.
"""
