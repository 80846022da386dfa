"""The command `export`: files for other runtimes, compared with the checkpoint."""
