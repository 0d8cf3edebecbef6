"""`python -m dpmed` is `dpmed`."""

from dpmed.cli.app import main

if __name__ == "__main__":
    main()
