"""Files and numbers from elsewhere: what others' test suites, exporters and hands make, through the public API.

This folder mirrors no package.  Every case is either right by numbers that are not ours, or refused
by `check` with the rule that says why; a table in each module tells which.  `onnx_lstm` is the
operator in float64 from its specification, the yardstick where no numbers come with a case.
"""
