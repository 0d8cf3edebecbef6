"""The attack of an informed attacker, who names the record used in training among candidates."""
