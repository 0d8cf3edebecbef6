"""Faults, kills, hostile inputs and load: what `docs/reliability.md` states. Never part of the tests, but for a smoke test."""
