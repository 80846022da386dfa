"""The command line: dispatch, options, configs, resuming. What a command computes lives elsewhere."""
