"""Where the program starts: nothing is imported before the edge guards it."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process; ``pimsim.cli.edge`` has the exit codes."""
    from pimsim.cli.edge import end, exit_code

    end(exit_code())


if __name__ == "__main__":
    main()
