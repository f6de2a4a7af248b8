"""A diffusion model as a decoder: a few deterministic steps from noise to image, differentiated exactly.

This file is copied into every bundle that uses it; what stays at home is in ``latentdc.decoders.diffusion``.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

DENOISERS = ("UNet2DModel", "DiTTransformer2DModel")
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC", "VQModel")
PREDICTIONS = {"epsilon": 3, "sample": 3, "v_prediction": 3, "flow": 3, "linear": 5}  # and how many numbers a step has
SKIPS = ("none", "state", "x0")


class DiffusionDecoder(ModelMixin, ConfigMixin):
    """z, class → image by k steps of DDIM or flow-Euler over a diffusers UNet or DiT, in pixels or in latents.

    The latents are ``z``, the noise the steps begin with, and with ``learn_condition`` also ``c``, one class embedding
    per row. With noise level ᾱ → ᾱ' (DDIM) or σ → σ' (flow), step i = 0 … k-1 is

        x0 = (h - √(1-ᾱ) ε) / √ᾱ,  h' = √ᾱ' x0 + √(1-ᾱ'-s²) ε + s n      or      h' = h + (σ' - σ) v

    with s = eta · √((1-ᾱ')/(1-ᾱ) · (1-ᾱ/ᾱ')); a one-step model is h = α z, h' = γ out(h / β) + δ h. *Skip from z*:
    ``"state"`` is the paper's, h' ← (1-λ) h' + λ z with λ = (k-i)/k; ``"x0"`` the authors' code's, x0 ← (1-λ) x0 + λ z
    with λ = (k-1-i)/(k-1). *Truncation*: the network's output is a constant in all but the last steps, which biases.

    Args:
        denoiser_class, denoiser_config: ``UNet2DModel`` or ``DiTTransformer2DModel``, and its ``config.json``.
        image_shape: ``(c, h, w)``; one channel for a model of three is their mean, three for one are copies.
        prediction: what the denoiser says: ``"epsilon"``, ``"sample"``, ``"v_prediction"``, ``"flow"`` or ``"linear"``.
        plan: k steps, each [time, ᾱ, ᾱ'] or [time, σ, σ'] (linear: [time, α, β, γ, δ]). Stored as numbers, so that no
            change in a scheduler changes the images; latentdc's ``plan_of`` reads them off a scheduler.
        num_classes, class_ids: how many, or None for a denoiser without; its class for each of ours if not the same.
        autoencoder_class, autoencoder_config: where the steps run in the scaled latents of one of diffusers.
        learn_condition: make the class embedding a latent of each row.
        guidance, null_class: g of ε = ε(null) + g (ε(class) - ε(null)), 1 evaluates once; the class that is none.
        skip: ``"none"``, ``"state"`` or ``"x0"`` (DDIM only).
        backward_steps: how many of the last steps are differentiated whole; None for all.
        recompute: recompute each step and the autoencoder in the backward pass: one is held in memory at a time.
        eta, noise_seed: DDIM's η; a row's noise n is its own z, reordered and with other signs as seed and step say.
        start: share of the plan that is run: 0.7 leaves out three of ten steps, and z has the noise they would leave.

    Raises:
        ValueError: an unknown class or name, or settings that do not fit each other.

    *Reference:* Song et al. 2021, arXiv 2010.02502, eq. 12; Ho & Salimans 2022, arXiv 2207.12598; Moser et al. 2024,
    arXiv 2403.03881. *Differs from the last's code*: z is learned; there a clean latent, noised anew, mixed quantised.
    """

    config_name: Any = "config.json"
    cite: ClassVar[tuple[str, ...]] = ("song2021ddim", "ho2022guidance", "rombach2022ldm", "moser2024ld3m")
    heavy: ClassVar[bool] = True  # one row may fill the memory: where no chunk is given, it follows from what is free

    @register_to_config
    def __init__(
        self,
        denoiser_class: str,
        denoiser_config: dict[str, Any],
        image_shape: Sequence[int],
        prediction: str,
        plan: Sequence[Sequence[float]],
        num_classes: int | None = None,
        *,
        class_ids: Sequence[int] | None = None,
        autoencoder_class: str | None = None,
        autoencoder_config: dict[str, Any] | None = None,
        learn_condition: bool = False,
        guidance: float = 1.0,
        null_class: int | None = None,
        skip: str = "none",
        backward_steps: int | None = None,
        recompute: bool = True,
        eta: float = 0.0,
        noise_seed: int = 0,
        start: float = 1.0,
    ) -> None:
        super().__init__()
        for what, name, known in (
            ("denoiser_class", denoiser_class, DENOISERS),
            ("autoencoder_class", autoencoder_class or AUTOENCODERS[0], AUTOENCODERS),
            ("prediction", prediction, PREDICTIONS),
            ("skip", skip, SKIPS),
        ):
            if name not in known:
                raise ValueError(f'{what} = "{name}": known are {", ".join(known)}')
        self.shape, self.skip, self.recompute = tuple(int(side) for side in image_shape), skip, bool(recompute)
        self.learn_condition = bool(learn_condition)
        self.guidance, self.null_class, self.eta, self.seed = float(guidance), null_class, float(eta), int(noise_seed)
        self.prediction, self.plan = prediction, [tuple(step) for step in plan]
        self.first = len(self.plan) - max(1, round(start * len(self.plan)))
        self.first_learned = 0 if backward_steps is None else max(0, len(self.plan) - backward_steps)
        self.denoiser = receptive(getattr(diffusers, denoiser_class).from_config(dict(denoiser_config)))
        coder = None if autoencoder_class is None else getattr(diffusers, autoencoder_class)
        self.autoencoder: Any = coder and coder.from_config(dict(autoencoder_config or {}))
        self.start_shape = self._start_shape()
        self.class_ids = None if num_classes is None else list(range(num_classes) if class_ids is None else class_ids)
        self.check()

    def check(self) -> None:
        """Refuse settings that do not fit each other; here they were checked before, by latentdc's class."""

    def _start_shape(self) -> tuple[int, ...]:
        """Shape of the noise, read off the configurations."""
        channels, size = int(self.denoiser.config.in_channels), self.denoiser.config.sample_size
        made, latent, factor = channels, channels, 1  # in pixels
        if self.autoencoder is not None:
            config = self.autoencoder.config
            levels = config.get("decoder_block_out_channels") or config.block_out_channels
            factor = config.get("upsampling_scaling_factor", 2) ** (len(levels) - 1)
            made = int(config.get("out_channels", config.in_channels))
            latent = int(config.get("vq_embed_dim") or config.latent_channels)
        start = (channels, *(side // factor for side in self.shape[1:]))
        square = isinstance(self.denoiser, diffusers.DiTTransformer2DModel)  # its positions are those of one size
        if latent != channels:
            raise ValueError(f"the denoiser takes {channels} channels, but latents of the autoencoder have {latent}")
        if len(self.shape) != 3 or (self.shape[0] != made and {self.shape[0], made} != {1, 3}):
            raise ValueError(f"image_shape = {self.shape}: give (c, h, w) with c = {made}, or 1 for 3, or 3 for 1")
        if any(side % factor for side in self.shape[1:]) or (square and start[1:] != (size, size)):
            fit = f"{size * factor} x {size * factor}" if square else f"multiples of {factor}"
            raise ValueError(f"image_shape = {self.shape}: this model makes images of {fit}")
        return start

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """``{"z": shape of the denoiser's input}``, and ``"c": (d,)`` where the condition is learned."""
        c = {"c": (class_tables(self.denoiser)[0].embedding_dim,)} if self.learn_condition else {}
        return {"z": self.start_shape, **c}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(c, h, w)`` of a decoded image."""
        return self.shape

    @torch.no_grad()
    def prior(self, owner: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Standard normal noise for ``owner`` ``(n,)`` after the steps that ``start`` leaves out; ``c`` is no draw.

        Raises:
            ValueError: ``c`` is learned, but the blocks of a DiT embed a class differently.
        """
        draw = torch.randn((len(owner), *self.start_shape), generator=rng, device=rng.device, dtype=torch.float32)
        z = {"z": draw.to(owner.device), **self.condition(owner)}
        if self.first and len(draw):
            here = {key: value.to(self.device, self.dtype) for key, value in z.items()}
            z["z"] = self._steps(here, owner.to(self.device), range(self.first)).float().to(owner.device)
        return z

    def condition(self, owner: Tensor) -> dict[str, Tensor]:
        """``{"c": embeddings (n, d)}`` of classes ``(n,)`` if they are learned, else nothing; raises as ``prior``."""
        if not self.learn_condition:
            return {}
        first, *others = [table.weight.detach() for table in class_tables(self.denoiser)]
        if not all(torch.equal(first, other) for other in others):
            raise ValueError("learn_condition = True: each block of this DiT embeds classes in its own way")
        return {"c": first.float()[torch.tensor(self.class_ids)[owner.cpu()].to(first.device)].to(owner.device)}

    def labels(self, owner: Tensor) -> Tensor | None:
        """The denoiser's classes ``(n,)`` for ours, or None where it has none."""
        return None if self.class_ids is None else torch.tensor(self.class_ids, device=owner.device)[owner]

    def forward(self, z: dict[str, Tensor], owner: Tensor) -> Tensor:
        """Images ``(n, c, h, w)``, nominally in [0, 1] and not clamped, for classes ``owner`` ``(n,)``."""
        if not len(z["z"]):  # attention over no rows is not defined everywhere
            return z["z"].new_zeros(0, *self.shape)
        return self._run(True, self._image, self._steps(z, owner, range(self.first, len(self.plan))))

    def _steps(self, z: dict[str, Tensor], owner: Tensor, steps: range) -> Tensor:
        h, label = z["z"], z["c"] if self.learn_condition else self.labels(owner)
        for i in steps:  # as an argument: a step that is recomputed must see its own i
            h = self._run(i >= self.first_learned, self._advance, h, z["z"], label, i)
        return h

    def _run(self, learned: bool, function: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.recompute and learned and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
        return function(*args)

    def _advance(self, h: Tensor, z: Tensor, label: Tensor | None, i: int) -> Tensor:
        """State after step ``i`` from state ``h`` before it."""
        (time, *levels), num = self.plan[i], len(self.plan)
        if self.prediction == "linear":
            scale, divisor, gain, keep = levels
            return gain * self.network(scale * h / divisor, label, time) + keep * (scale * h)
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= self.first_learned):
            out = self.network(h, label, time)
        if self.prediction == "flow":
            h = flow_step(out, h, levels)
        else:
            mix = (z, (num - 1 - i) / (num - 1)) if self.skip == "x0" and num > 1 else None
            noise = shuffled(z, self.seed * num + i) if self.eta else None
            h = ddim_step(out, h, levels, self.prediction, eta=self.eta, noise=noise, mix=mix)
        rest = (num - i) / num
        return (1 - rest) * h + rest * z if self.skip == "state" else h

    def network(self, h: Tensor, label: Tensor | None, time: float, guidance: float | None = None) -> Tensor:
        """What the denoiser says of ``h``, guided (by the setting if None); a learned variance is left away."""
        g = self.guidance if guidance is None else guidance
        dtype = torch.int64 if isinstance(time, int) else torch.float32
        times = torch.full((len(h),), time, dtype=dtype, device=h.device)
        if label is None or g == 1:
            return self.denoiser(h, times, class_labels=label).sample[:, : h.shape[1]]  # type: ignore[no-any-return]
        null = torch.full((len(h),), int(self.null_class or 0), device=h.device)
        if label.is_floating_point():
            null = class_tables(self.denoiser)[0](null).to(label.dtype)
        both = self.denoiser(torch.cat([h, h]), torch.cat([times, times]), class_labels=torch.cat([label, null])).sample
        ours, nobody = both[:, : h.shape[1]].chunk(2)
        return nobody + g * (ours - nobody)  # type: ignore[no-any-return]

    def _image(self, h: Tensor) -> Tensor:
        if self.autoencoder is not None:
            config = self.autoencoder.config
            exact = {"force_not_quantize": True} if "num_vq_embeddings" in config else {}
            scale, shift = scaling(config, h)
            h = self.autoencoder.decode(h / scale + shift, return_dict=False, **exact)[0]
        x = h / 2 + 0.5
        return x.expand(-1, self.shape[0], -1, -1) if x.shape[1] <= self.shape[0] else x.mean(1, keepdim=True)


def scaling(config: Any, like: Tensor) -> tuple[Any, Any]:
    """Scale and shift of an autoencoder's latents, for each channel where it knows their deviation and mean."""
    std, mean = config.get("latents_std"), config.get("latents_mean")
    scale = config.scaling_factor / (like.new_tensor(std)[:, None, None] if std else 1.0)
    return scale, like.new_tensor(mean)[:, None, None] if mean else (config.get("shift_factor") or 0.0)


class RowEmbedding(nn.Embedding):
    """Class embeddings that let vectors through, so that a row can bring its own."""

    def forward(self, input: Tensor) -> Tensor:
        """Embeddings ``(n, d)`` of classes ``(n,)``; vectors ``(n, d)`` stay as they are."""
        return input if input.is_floating_point() else super().forward(input)


def class_tables(denoiser: Any) -> list[nn.Embedding]:
    """The class embeddings of a denoiser: none, one, or one for each block of a DiT."""
    if hasattr(denoiser, "transformer_blocks"):
        return [block.norm1.emb.class_embedder.embedding_table for block in denoiser.transformer_blocks]
    if not isinstance(denoiser.class_embedding, nn.Embedding | None):
        raise ValueError("denoiser_config: class_embed_type must be null, so that there is an embedding per class")
    return [] if denoiser.class_embedding is None else [denoiser.class_embedding]


def receptive(denoiser: Any) -> Any:
    """The same denoiser, whose class embeddings also take vectors."""
    for table in class_tables(denoiser):
        table.__class__ = RowEmbedding  # in place: weights and their names stay what they are
    return denoiser


def shuffled(z: Tensor, seed: int) -> Tensor:
    """The numbers of each row of ``z`` in another order and with other signs: as normal as they, and unlike them."""
    rng, flat = torch.Generator().manual_seed(seed), z.flatten(1)
    order, sign = torch.randperm(flat.shape[1], generator=rng), torch.randn(flat.shape[1], generator=rng).sign()
    return (flat[:, order.to(z.device)] * sign.to(z)).view_as(z)


def ddim_parts(out: Tensor, h: Tensor, a: Tensor, prediction: str) -> tuple[Tensor, Tensor]:
    """x0 and ε that a denoiser's output stands for at ᾱ = ``a``."""
    if prediction == "epsilon":
        return (h - (1 - a) ** 0.5 * out) / a**0.5, out
    if prediction == "sample":
        return out, (h - a**0.5 * out) / (1 - a) ** 0.5
    return a**0.5 * h - (1 - a) ** 0.5 * out, a**0.5 * out + (1 - a) ** 0.5 * h


def ddim_step(
    out: Tensor,
    h: Tensor,
    levels: Sequence[float],
    prediction: str,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
    mix: tuple[Tensor, float] | None = None,
) -> Tensor:
    """State after a step of DDIM from ᾱ to ᾱ', bit-equal to ``DDIMScheduler.step``; ``mix``: z and λ of the skip."""
    a, b = torch.tensor(levels, dtype=torch.float32)
    x0, e = ddim_parts(out, h, a, prediction)
    if mix is not None:
        x0 = (1 - mix[1]) * x0 + mix[1] * mix[0]
    spread = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
    h_next: Tensor = b**0.5 * x0 + (1 - b - spread**2) ** 0.5 * e
    return h_next if noise is None else h_next + spread * noise


def flow_step(out: Tensor, h: Tensor, levels: Sequence[float]) -> Tensor:
    """State after a step of Euler, bit-equal to ``FlowMatchEulerDiscreteScheduler.step`` (which knows no float64)."""
    now, then = torch.tensor(levels, dtype=torch.float32)
    wide: Tensor = h.to(torch.promote_types(h.dtype, torch.float32)) + (then - now) * out
    return wide.to(out.dtype)
