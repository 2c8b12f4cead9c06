"""Python loops over a dynamic axis, unrolled by a trace, as Scan or recurrent nodes, with a proof of each."""
