"""Run the command line as `python -m p2p`."""

from p2p.cli.main import main

if __name__ == "__main__":
    main()
