"""A diffusion model as a decoder, with what does not travel in bundles: refusals, and the ways from image to latent."""

# diffusers' own classes carry no types.
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from latentdc.decoders.chunks import images_at_once
from latentdc.portable import diffusion
from latentdc.portable.autoencoder import fit_channels
from latentdc.portable.diffusion import PREDICTIONS, class_tables, ddim_parts, ddim_step, flow_step, scaling

PASSES = 2
"""Corrections of a step that is gone backwards. The first alone is DDIM inversion, the second lowers the error at any
number of steps; more would have to settle, which they do not where the denoiser is steep."""


class DiffusionDecoder(diffusion.DiffusionDecoder):
    """The decoder of ``latentdc.portable.diffusion``, which see, able to encode; a bundle carries that class alone.

    *Reference:* of ``encode``: Song et al. 2021, arXiv 2010.02502, §4.3; of ``noised``: Su et al. 2024,
    arXiv 2407.15138, §3.2; of ``towards``: Chan-Santiago et al. 2025, arXiv 2505.18963.
    """

    config: Any
    travels: ClassVar[type[diffusion.DiffusionDecoder]] = diffusion.DiffusionDecoder
    lossy: ClassVar[bool] = True
    """Decoding what ``encode`` gives is near the image, not equal to it."""

    def _steps(self, z: dict[str, Tensor], owner: Tensor, steps: range) -> Tensor:
        """As there; without a gradient some rows at a time, since a prior after some steps asks for all at once."""
        run, num = super()._steps, images_at_once(self)
        if torch.is_grad_enabled() or len(owner) <= num:
            return run(z, owner, steps)
        parts = torch.split(torch.arange(len(owner), device=owner.device), num)
        return torch.cat([run({key: value[rows] for key, value in z.items()}, owner[rows], steps) for rows in parts])

    def check(self) -> None:
        """Refuse settings that do not fit each other.

        Raises:
            ValueError: saying which.
        """
        config, tables, ids, num = self.config, class_tables(self.denoiser), self.class_ids, len(self.plan)
        known = tables[0].num_embeddings if tables else 0
        has = f"the denoiser has {f'classes 0 to {known - 1}' if tables else 'no classes'}"
        size, given = PREDICTIONS[self.prediction], set(ids or [])
        last = 1 if config.backward_steps is None else config.backward_steps
        for wrong, message in (
            (not num or {*map(len, self.plan)} != {size}, f"plan: give at least one step, each of {size} numbers"),
            (
                (ids is None) == bool(tables)
                or len(ids or []) != (config.num_classes or 0)
                or not given <= {*range(known)},
                f"num_classes = {config.num_classes}, class_ids = {ids}: {has}; give one of them for each class, or "
                "None",
            ),
            (
                self.guidance != 1 and self.null_class not in range(known),
                f"guidance = {self.guidance}: needs a class for none, null_class = {self.null_class}; {has}",
            ),
            (self.learn_condition and not tables, f"learn_condition: {has}"),
            (self.skip == "state" and num < 2, 'skip = "state" with one step is z itself; give more steps'),
            (
                self.prediction in ("flow", "linear") and (self.skip == "x0" or self.eta != 0),
                f'skip = "{self.skip}", eta = {self.eta}: prediction = "{self.prediction}" knows no x0 and no noise',
            ),
            (size == 5 and (num > 1 or self.skip != "none"), 'prediction = "linear": give one step, and skip = "none"'),
            *self._uneven(),
            *self._indivisible(),
            (
                not 0 <= self.eta <= 1 or last < 1,
                f"eta = {self.eta}, backward_steps = {last}: give 0 to 1, and 1 or more",
            ),
            (
                not 0 < config.start <= 1,
                f"start = {config.start}: give the share of the steps to take, above 0 and at most 1",
            ),
        ):
            if wrong:
                raise ValueError(message)

    def _indivisible(self) -> list[tuple[bool, str]]:
        """A size that a U-Net cannot halve at each of its levels and double again, and what to say of it."""
        blocks = self.denoiser.config.get("down_block_types") or [None]
        factor = 2 ** (len(blocks) - 1)
        whole = self.shape[1] // self.start_shape[1] * factor
        wrong = any(side % factor for side in self.start_shape[1:])
        return [
            (
                wrong,
                f"image_shape = {self.shape}: a U-Net of {len(blocks)} levels halves its input {len(blocks) - 1} "
                f"times: height and width must be multiples of {whole}; load the data at such a size (--size)",
            )
        ]

    def _uneven(self) -> list[tuple[bool, str]]:
        """Statistics of the autoencoder's latents that are not one for each channel, and what to say of them."""
        config = {} if self.autoencoder is None else self.autoencoder.config
        channels, found = self.start_shape[0], {name: config.get(name) for name in ("latents_std", "latents_mean")}
        return [
            (
                value is not None and len(value) not in (0, channels),
                f"autoencoder_config: {name} = {value} for {channels} channels",
            )
            for name, value in found.items()
        ]

    @property
    def invertible(self) -> bool:
        """Whether ``encode`` can go the steps backwards: many of them, and without noise."""
        return self.prediction != "linear" and self.eta == 0

    @torch.no_grad()
    def clean(self, x: Tensor) -> Tensor:
        """Where the steps should end for images ``(n, c, h, w)`` in [0, 1]: scaled latents, or pixels in [-1, 1]."""
        model = self.denoiser if self.autoencoder is None else self.autoencoder
        fitted = fit_channels(2 * x - 1, int(model.config.in_channels))
        if self.autoencoder is None:
            return fitted
        out, config = model.encode(fitted), model.config
        coded = out.latents if "latents" in out else out.get("latent")
        raw: Tensor = out.latent_dist.mode() if "latent_dist" in out else coded
        scale, shift = scaling(config, raw)
        scaled: Tensor = (raw - shift) * scale
        return scaled

    @torch.no_grad()
    def encode(self, x: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """Latents of images ``(n, c, h, w)`` in [0, 1] of classes ``owner`` ``(n,)``: the steps, gone backwards.

        With S a step to h' = S(h), h is found from h = h' by ``PASSES`` times

            h ← h + √(ᾱ/ᾱ') (h' - S(h))      (flow: without the root),

        once being DDIM inversion. S is taken without skip and with guidance 1, since guidance lets every error grow on
        the way back: decoded with guidance, an image comes out as a more typical one of its class. ``c`` is the class's
        embedding.

        Raises:
            ValueError: a one-step model, or noise in the steps (eta): see ``invertible``; or as ``prior``.
        """
        if not self.invertible:
            raise ValueError(
                f'prediction = "{self.prediction}", eta = {self.eta}: only deterministic steps, more than one, can be '
                "gone backwards"
            )
        h, label = self.clean(x), self.labels(owner)
        for i in reversed(range(self.first, len(self.plan))):
            _, now, then = self.plan[i]
            rate, target = 1.0 if self.prediction == "flow" else (now / then) ** 0.5, h
            for _ in range(PASSES):
                h = h + rate * (target - self._plain(h, label, i))
        return {"z": h, **self.condition(owner)}

    def _plain(self, h: Tensor, label: Tensor | None, i: int) -> Tensor:
        """State after step ``i`` without guidance, skip and noise."""
        time, *levels = self.plan[i]
        out = self.network(h, label, time, guidance=1.0)
        return flow_step(out, h, levels) if self.prediction == "flow" else ddim_step(out, h, levels, self.prediction)

    @torch.no_grad()
    def noised(self, clean: Tensor, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Latents where decoding starts, of clean ones ``(n, *shape)``: √ᾱ x0 + √(1-ᾱ) n, or (1-σ) x0 + σ n.

        Raises:
            ValueError: ``start`` leaves no step out, or as ``prior``.
        """
        if not self.first:
            raise ValueError(
                f"start = {self.config.start}: nothing is left of a clean latent under all the noise; give a model of "
                "several steps, and start below 1 (0.7: three of ten steps are left out)"
            )
        level = self.plan[self.first][1]
        signal, spread = (1 - level, level) if self.prediction == "flow" else (level**0.5, (1 - level) ** 0.5)
        noise = torch.randn(clean.shape, generator=rng, device=rng.device, dtype=torch.float32)
        return {"z": signal * clean + spread * noise.to(clean), **self.condition(owner)}

    @torch.no_grad()
    def towards(self, modes: Tensor, owner: Tensor, rng: torch.Generator, strength: float) -> dict[str, Tensor]:
        """Latents where decoding starts, reached from noise by the steps ``start`` leaves out, each drawn to a mode.

            x0 ← x0 + min(1, μ (1-ᾱ)/√ᾱ) (m - x0)

        As long as the weight is below 1 this is the paper's ε ← ε - √(1-ᾱ) μ (m - x0). Where few steps begin at almost
        pure noise, ᾱ near 0, that would throw x0 thousands of times past its mode; here it stops there.

        What is decoded then is what the whole plan makes that is guided up to there and not from there on.

        Args:
            modes: m, clean latents ``(n, *shape)``.
            owner: their classes ``(n,)``.
            rng: of the noise that the steps begin with.
            strength: μ.

        Raises:
            ValueError: ``start`` leaves no step out, a model that knows no x0, steps with skip or noise, or as
                ``prior``.
        """
        if self.prediction in ("flow", "linear") or not self.first or self.skip != "none" or self.eta:
            raise ValueError(
                f'prediction = "{self.prediction}", skip = "{self.skip}", eta = {self.eta}, start = '
                f"{self.config.start}: modes guide the steps of DDIM that come before decoding; give such a model, "
                'plain steps (skip = "none", eta = 0), and start below 1 (0.5: the first half is guided)'
            )
        noise = torch.randn(modes.shape, generator=rng, device=rng.device, dtype=torch.float32)
        h, label = noise.to(modes), self.labels(owner)
        for time, *levels in self.plan[: self.first]:
            now = torch.tensor(levels[0], dtype=torch.float32)
            x0, _ = ddim_parts(self.network(h, label, time), h, now, self.prediction)
            weight = min(1.0, strength * float((1 - now) / now**0.5))
            h = ddim_step(x0 + weight * (modes - x0), h, levels, "sample")
        return {"z": h, **self.condition(owner)}
