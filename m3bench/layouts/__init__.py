"""Shapes of made-up dataset folders, one file each: `TASK`, `DIMS`, and `write(draft)`, which fills the folder."""
