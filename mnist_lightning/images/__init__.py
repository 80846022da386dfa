"""Read and resize people's image files. No torch, and no search for digits."""
