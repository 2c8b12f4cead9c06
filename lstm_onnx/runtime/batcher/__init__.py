"""`Batcher`: requests of threads and asyncio tasks, run together."""
