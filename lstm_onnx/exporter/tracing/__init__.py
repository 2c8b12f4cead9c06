"""Traces a module with torch.export, with recurrent modules as opaque operators, and translates it with torch.onnx."""
