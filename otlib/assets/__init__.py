"""All that opens files, folders, weights and hubs; the mathematics beside it opens none."""
