"""Runs work on untrusted files in a child process, with limits on time and memory.

A single operator can crash or hang the process that opens a model, in onnx or in ONNX Runtime, without an exception,
and no list of such operators is complete.  `process.Child` calls a function in a new interpreter and returns its
result, or raises an error that says how and in which stage the process ended.  `supervision.supervised` runs a whole
command in the same way, with this process's input and output.  The work itself calls `stages`, in any process.

This package imports only Python's standard library; the child imports what its function needs.
"""
