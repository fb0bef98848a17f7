"""What would run, what is done, and why."""
