"""Faults, kills, hostile inputs and loads, as `docs/reliability.md` states them; of the tests, a few are part."""
