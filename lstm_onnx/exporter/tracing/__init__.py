"""From a module and its example to the graph that torch.export traces, recurrent modules as opaque operators."""
