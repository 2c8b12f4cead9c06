"""Turns Python loops over a dynamic axis, which a trace unrolls, into Scan or recurrent nodes, each with a proof."""
