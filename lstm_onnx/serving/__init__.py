"""`lstm-onnx serve`: models over HTTP, gRPC and websockets, in the Open Inference Protocol v2 and with streams.

Everything runs in one event loop: requests that run a whole sequence are batched by `whole`, those of a stream by a
`Batcher` of the runtime.  Nothing else imports this package but the command, and its libraries come with the extra
``serve``.
"""
