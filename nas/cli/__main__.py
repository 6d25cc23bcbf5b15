"""``python -m nas.cli``, which a launcher of ranks starts."""

from nas.cli import main

if __name__ == "__main__":
    main()
