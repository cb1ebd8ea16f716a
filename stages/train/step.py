"""One optimiser step over a batch, in micro-batches where the batch does not fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.records import Preprocessing, TrainRecipe
from stages.train.model import Classifier, loss_of
from stages.train.optimiser import batch_norm_momentum, set_batch_norm_momentum
from stages.vision.devices import numeric_precision
from stages.vision.transforms import normalise

COMPILE_STEPS = 2000
"""Optimiser steps from which torch.compile pays for itself on a GPU: it takes a minute or two."""


class Stepper:
    """Does optimiser steps on a network in place.

    The gradient is that of the mean loss over the whole batch, however many micro-batches it is computed in.
    Batch-norm statistics are per micro-batch; their momentum is corrected so that the running ones forget
    as fast (protocol, "Fine-tuning", ours).

    Parameters
    ----------
    network : torch.nn.Module
        On ``device``; gives logits.
    optimiser : torch.optim.Optimizer
        Over its parameters.
    recipe : TrainRecipe
        Batch and micro-batch size, precision, whether to compile.
    preprocessing : Preprocessing
        Its mean and std.
    n_train : int
        Images of the set trained on.
    device : torch.device
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        recipe: TrainRecipe,
        preprocessing: Preprocessing,
        n_train: int,
        device: torch.device,
    ) -> None:
        self.network = network
        self.optimiser = optimiser
        self.device = device
        self.warnings: list[str] = []
        self._recipe = recipe
        self._preprocessing = preprocessing
        self._n_train = n_train
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.micro_batch_size = min(recipe.micro_batch_size or recipe.batch_size, recipe.batch_size)
        self.compiled = pays_to_compile(recipe, device)
        self._forward = torch.compile(network, dynamic=False) if self.compiled else network
        self._retune()

    @property
    def steps(self) -> int:
        """How many steps the job has."""
        return self._recipe.steps

    @property
    def micro_batches(self) -> int:
        """How many forward passes a step takes."""
        return math.ceil(self._recipe.batch_size / self.micro_batch_size)

    def use_micro_batch_size(self, size: int) -> None:
        """Go on with another micro-batch size, as a checkpoint says."""
        self.micro_batch_size = size
        self._retune()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Do one step.

        Where the device runs out of memory for the first time, the micro-batch is halved, the step begins
        anew, and ``warnings`` says so; a second time is the caller's error to hear of.

        Parameters
        ----------
        images : Tensor
            (b, 3, s, s) uint8.
        labels : Tensor
            (b,) int64 or (b, K) int8.

        Returns
        -------
        Tensor
            The mean loss before the step, a scalar on the device.
        """
        buffers = [b.clone() for b in self.network.buffers()]
        try:
            loss = self._gradients(images, labels)
        except ValueError as problem:
            if "more than 1 value per channel" not in str(problem):
                raise
            raise InputError(
                f"a micro-batch of one image, and the batch norm of this network needs two (batch_size "
                f"{len(images)}, micro_batch_size {self.micro_batch_size}): choose sizes that leave no single image"
            ) from problem
        except torch.OutOfMemoryError:
            if self.warnings or self.micro_batch_size < 2:
                raise
            loss = None
        if loss is None:  # outside the handler, whose traceback keeps the tensors of the failed pass alive
            self._halve(buffers)
            loss = self._gradients(images, labels)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Fill the gradients with those of the mean loss over the batch, and return that loss."""
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        pieces = zip(
            images.tensor_split(self.micro_batches), labels.tensor_split(self.micro_batches), strict=True
        )
        for some_images, some_labels in pieces:
            pixels = some_images.to(self.device, non_blocking=True)
            with numeric_precision(self._recipe.precision, self.device):
                logits = self._forward(normalise(pixels, self._preprocessing))
                wanted = some_labels.to(self.device, non_blocking=True)
                # A network of one's own in a test has no loss of its own.
                loss_of_pass = self.network.loss if isinstance(self.network, Classifier) else loss_of
                loss = loss_of_pass(logits, wanted, self._recipe.label_smoothing)
            loss = loss * (len(some_images) / len(images))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _halve(self, buffers: list[Tensor]) -> None:
        """Take back what the failed pass did to the batch norms, and halve the micro-batch."""
        with torch.no_grad():
            for now, before in zip(self.network.buffers(), buffers, strict=True):
                now.copy_(before)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        before_size = self.micro_batch_size
        self.use_micro_batch_size(before_size // 2)
        self.warnings.append(
            f"out of memory with micro-batches of {before_size} images: went on with {self.micro_batch_size}"
        )

    def _retune(self) -> None:
        """Set the batch norms' momentum for the number of micro-batches."""
        recipe = self._recipe
        momentum = batch_norm_momentum(
            self._n_train, recipe.batch_size, self.micro_batches, recipe.batch_norm_momentum
        )
        set_batch_norm_momentum(self.network, momentum)


def pays_to_compile(recipe: TrainRecipe, device: torch.device) -> bool:
    """Whether a job compiles its network: not on the CPU unless it is asked to, where small jobs are many."""
    if recipe.compile == "auto":
        return device.type == "cuda" and recipe.steps >= COMPILE_STEPS
    return recipe.compile == "always"
