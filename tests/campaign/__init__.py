"""Faults, kills and hostile inputs, as `docs/reliability.md` states them; of the tests, a few of each are part."""
