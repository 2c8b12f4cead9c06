"""The messages of the protocol over gRPC, as protobuf describes them."""
