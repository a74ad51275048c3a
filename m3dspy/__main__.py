"""`python -m m3dspy` is the command `m3dspy`."""

from m3dspy.cli import main

if __name__ == "__main__":
    main()
