"""The runtime: sessions, streams, providers and the arrays that go in."""
