"""Each command as a story told once: `run(settings, ...) -> Summary`."""
