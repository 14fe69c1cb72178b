"""`python -m rllib_attention inspect CHECKPOINT`. See `--help`."""

from rllib_attention.inspection.command import main

if __name__ == "__main__":
    main()
