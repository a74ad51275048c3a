"""The datasets of M3Bench, one file each; every file offers `TASK`, a `BenchTask`."""
