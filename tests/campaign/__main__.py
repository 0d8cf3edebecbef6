"""`python -m tests.campaign PART --num N --seconds S --only NAME,…`: one part, and build/campaign/PART.json."""

import argparse
import importlib
import json
import sys
import time

from tests.campaign.shim import BUILD

PARTS = ("faults", "kills", "inputs", "load")


def main() -> None:
    """Run the part that was asked for; exits with 1 when a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--num", type=int, default=1_000_000, help="cases at most")
    parser.add_argument("--seconds", type=float, default=600, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0, help="another one tries other cases")
    parser.add_argument("--only", default="", help="names of scenarios, readers or loads")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="of loads: these sizes in place of their own")
    untried = "of faults: leave out what earlier such calls tried with the same code of dpmed, or any; results add up"
    parser.add_argument("--untried", nargs="?", const="same", default="", choices=("same", "any"), help=untried)
    chosen = parser.parse_args()
    if chosen.untried and chosen.part != "faults":
        parser.error("--untried is of faults")
    module = importlib.import_module(f"tests.campaign.{chosen.part}")
    begun = time.monotonic()
    only = [name for name in chosen.only.split(",") if name]
    more = {"rows": sorted(chosen.rows)} if chosen.rows else {}
    more |= {"untried": chosen.untried} if chosen.untried else {}
    result = module.campaign(only, num=chosen.num, seconds=chosen.seconds, seed=chosen.seed, **more)
    result = {"part": chosen.part, "seed": chosen.seed, "seconds": round(time.monotonic() - begun, 1), **result}
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{chosen.part}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "broken"}))
    print(f"{len(result['broken'])} broke a law; {path}")
    sys.exit(1 if result["broken"] else 0)


if __name__ == "__main__":
    main()
