"""Many runs: repeat over seeds, sweep over options."""
