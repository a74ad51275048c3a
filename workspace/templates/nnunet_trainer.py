"""nnU-Net's own trainer, which tells of its epochs as every script here does and can be killed at any instant.

What it prints goes to the log. Imported where nnU-Net is known to be installed.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # pyright: ignore[reportMissingImports]

from harness import ORDERS, Problem, log, say


def mirrored(s) -> tuple[int, ...] | None:
    """The axes of nnU-Net's patch that may be mirrored; None if none may, as nnU-Net has it.

    s.flips names those of the image, which nnU-Net has turned round.
    """
    patch = s.plans["configurations"][s.configuration]["patch_size"]
    axes = s.plans["transpose_forward"][3 - len(patch) :]
    ours = [2 - axis if s.dims == 3 else axis - 1 for axis in axes]
    return tuple(place for place, axis in enumerate(ours) if axis in s.flips) or None


class Trainer(nnUNetTrainer):
    """`run_training` as it is, with the steps, epochs and mirror axes of Settings."""

    s: Any

    def begin(self, s) -> None:
        """Build the network. To be called once, before anything else."""
        self.s = s
        self.initial_lr, self.num_epochs, self.save_every = s.lr, s.epochs, 1
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = s.steps, max(1, s.steps // 5)
        self.logger.plot_progress_png = lambda folder: None  # takes seconds an epoch, and nobody sees it
        seed(s.seed)
        self.initialize()

    def told(self) -> list[dict[str, Any]]:
        """The lines of all epochs so far. The score is nnU-Net's: a running mean of the Dice on validation patches."""
        names = ("train_losses", "ema_fg_dice", "dice_per_class_or_region")
        kept = (self.logger.get_value(name, None) for name in names)
        return [
            {
                "epoch": epoch,
                "loss": float(loss),
                "score": float(score),
                "dice": {name: float(x) for name, x in zip(self.s.labels, dice, strict=True) if np.isfinite(x)},
            }
            for epoch, (loss, score, dice) in enumerate(zip(*kept, strict=True))
        ]

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        rotation, flat, size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = mirrored(self.s)
        return rotation, flat, size, mirrored(self.s)

    def on_epoch_start(self) -> None:
        seed(self.s.seed * 1_000_003 + self.current_epoch + 1)
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        ORDERS.check()
        outcome = super().train_step(batch)
        if not np.isfinite(outcome["loss"]):
            loss, lr = outcome["loss"], self.s.lr
            raise Problem(f"the loss became {loss} in epoch {self.current_epoch}: lower lr (now {lr})")
        return outcome

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        while not any(out[part].any() for out in val_outputs for part in ("tp_hard", "fp_hard", "fn_hard")):
            ORDERS.check()  # no patch has shown or been given any label: there is no Dice yet
            val_outputs.append(self.validation_step(next(self.dataloader_val)))
        super().on_validation_epoch_end(val_outputs)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        say(**self.told()[-1])

    def save_checkpoint(self, filename: str) -> None:
        if not filename.endswith("checkpoint_best.pth"):  # nnU-Net answers with the last one
            super().save_checkpoint(f"{filename}.tmp")
            Path(f"{filename}.tmp").replace(filename)

    def _save_debug_information(self) -> None:
        """Nothing: it would start a process for every attribute, for a file that nobody reads."""

    def print_to_log_file(self, *args, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        log(*args)


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
