"""`Batcher`: runs requests of threads and asyncio tasks together."""
