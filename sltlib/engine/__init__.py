"""From a value to a stored result: run(), its workers, the store, checkpoints and what repairs them."""
