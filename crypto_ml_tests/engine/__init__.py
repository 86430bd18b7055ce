"""The engine: shards that stand, workers that die, clusters that are lost."""
