"""Folders of diffusers become decoders; modules whose gradient would be wrong do not."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import diffusers
import pytest
import torch
from accelerate import cpu_offload
from tiny_models import AUTOENCODERS, DDIM, DIT, KL, UNET, tiny_unet
from tiny_parts import SPEC, write_bundle

from latentdc.decoders.components import WEIGHTS
from latentdc.decoders.diffusers_folder import load_diffusers_folder
from latentdc.decoders.reference import load_decoder, resolve_decoder
from latentdc.decoders.wrapping import autoencoder_decoder, diffusion_decoder
from latentdc.errors import BundleError, InputError
from latentdc.seeding import global_seed, stream

OWNER = torch.tensor([0, 2, 1])


def pipeline(folder: Path, scheduler: object, **parts: torch.nn.Module) -> Path:
    """A pipeline's folder, as ``save_pretrained`` lays it out."""
    index = {"_class_name": "SomePipeline", "scheduler": ["diffusers", type(scheduler).__name__]}
    scheduler.save_pretrained(folder / "scheduler")
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def kl() -> diffusers.AutoencoderKL:
    with global_seed(0, "folder"):
        return diffusers.AutoencoderKL(**KL).eval()


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_an_autoencoders_folder(name: str, tmp_path: Path) -> None:
    with global_seed(0, "folder"):
        model = getattr(diffusers, name)(**AUTOENCODERS[name]).eval()
    model.save_pretrained(tmp_path)
    decoder = resolve_decoder(str(tmp_path), SPEC)
    assert tuple(decoder.image_shape) == SPEC.image_shape
    direct = autoencoder_decoder(model, SPEC.image_shape)
    z = decoder.prior(OWNER, stream(0, "z"))
    assert torch.equal(decoder(z, OWNER), direct(z, OWNER))
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    assert not any(module.training for module in decoder.modules())


def test_the_models_own_size_without_data(tmp_path: Path) -> None:
    kl().save_pretrained(tmp_path / "kl")
    assert tuple(load_decoder(tmp_path / "kl").image_shape) == (3, 8, 8)
    diffusers.AutoencoderTiny(**AUTOENCODERS["AutoencoderTiny"]).save_pretrained(tmp_path / "tiny")
    with pytest.raises(InputError, match="AutoencoderTiny does not tell its image size; give the data"):
        load_decoder(tmp_path / "tiny")


def test_a_ddpm_pipeline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Real layout: DDPMPipeline saves itself; clipping is taken away, and that is said."""
    with global_seed(0, "folder"):
        unet = tiny_unet().eval()
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="latentdc"):
        decoder = resolve_decoder(tmp_path, SPEC)
    assert "DDPMScheduler is taken without clip_sample, which would stop gradients" in caplog.text
    direct = diffusion_decoder(unet, DDIM, [1, 8, 8])
    z = decoder.prior(OWNER, stream(0, "z"))
    assert torch.equal(decoder(z, OWNER), direct(z, OWNER))
    assert len(decoder.plan) == 10
    assert tuple(load_decoder(tmp_path).image_shape) == (1, 8, 8)


def test_a_latent_pipeline_and_back_from_our_own_folder(tmp_path: Path) -> None:
    with global_seed(0, "folder"):
        vq = diffusers.VQModel(**AUTOENCODERS["VQModel"])
        unet = diffusers.UNet2DModel(**{**UNET, "in_channels": 2, "out_channels": 2, "sample_size": 4})
    folder = pipeline(tmp_path / "theirs", diffusers.DDIMScheduler(), unet=unet, vqvae=vq)
    decoder = load_diffusers_folder(folder, SPEC, steps=3, settings={"skip": "x0"})
    assert decoder.latent_shapes == {"z": (2, 4, 4)}
    assert tuple(load_decoder(folder).image_shape) == (3, 8, 8)
    decoder.save_pretrained(tmp_path / "ours")
    back = resolve_decoder(tmp_path / "ours", SPEC)
    z = decoder.prior(OWNER, stream(0, "z"))
    assert torch.equal(back(z, OWNER), decoder(z, OWNER))


def test_a_dit_pipeline_finds_classes_by_name(tmp_path: Path) -> None:
    with global_seed(0, "folder"):
        dit = diffusers.DiTTransformer2DModel(**{**DIT, "num_embeds_ada_norm": 5})
    folder = pipeline(tmp_path, diffusers.DDIMScheduler(), transformer=dit, vae=kl())
    named = json.loads((folder / "model_index.json").read_text())
    wanted = r'the model has 5 classes, the data "tiny" has 3.*: --set .decoder\.class_ids='
    with pytest.raises(InputError, match=wanted):
        load_decoder(folder, SPEC)
    given = load_decoder(folder, SPEC, settings={"class_ids": [4, 0, 2]})
    named["id2label"] = {"0": "coat", "2": "purse, bag", "4": "boot", "1": "hat", "3": "sock"}
    (folder / "model_index.json").write_text(json.dumps(named))
    for wrong in ({"first": "coat"}, ["coat", "boot"]):
        (folder / "model_index.json").write_text(json.dumps({**named, "id2label": wrong}))
        with pytest.raises(BundleError, match=r"id2label = .*: a name for each number is needed"):
            load_decoder(folder, SPEC)
    (folder / "model_index.json").write_text(json.dumps(named))
    found = load_decoder(folder, SPEC)
    assert found.class_ids == given.class_ids == [4, 0, 2]
    assert resolve_decoder(folder, SPEC).config["num_classes"] == 3


def test_a_consistency_model_takes_one_step(tmp_path: Path) -> None:
    folder = pipeline(tmp_path, diffusers.CMStochasticIterativeScheduler(), unet=tiny_unet(3))
    decoder = load_decoder(folder, SPEC)
    assert (decoder.prediction, len(decoder.plan)) == ("linear", 1)


def test_refused_folders(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "multistep", diffusers.DPMSolverMultistepScheduler(), unet=tiny_unet())
    with pytest.raises(InputError, match=r'"DPMSolverMultistepScheduler".*keeps state from step to step'):
        load_decoder(folder, SPEC)
    folder = pipeline(tmp_path / "text", diffusers.DDIMScheduler(), unet=tiny_unet(), vae=kl(), text_encoder=kl())
    with pytest.raises(InputError, match=r"text drives it \(text_encoder\).*Its autoencoder alone will do: .*text/vae"):
        load_decoder(folder, SPEC)
    folder = pipeline(tmp_path / "empty", diffusers.DDIMScheduler())
    with pytest.raises(InputError, match="has no unet or transformer with a scheduler; it has scheduler"):
        load_decoder(folder, SPEC)
    folder = pipeline(tmp_path / "other", diffusers.DDIMScheduler(), unet=kl())
    with pytest.raises(
        InputError, match="AutoencoderKL cannot be used here; supported are UNet2DModel, DiTTransformer"
    ):
        load_decoder(folder, SPEC)
    with pytest.raises(InputError, match=r"is a bundle.*the decoder alone is .*/decoder"):
        load_decoder(write_bundle(tmp_path / "bundle"), SPEC)
    kl().save_pretrained(tmp_path / "kl")
    with pytest.raises(InputError, match=r"image_shape = \(1, 9, 9\): .*multiples of 2"):
        load_decoder(tmp_path / "kl", dataclasses.replace(SPEC, image_shape=(1, 9, 9)))
    config = (tmp_path / "kl" / "config.json").read_text()
    for change in ({"block_out_channels": []}, {"norm_num_groups": 0}):
        (tmp_path / "kl" / "config.json").write_text(json.dumps({**json.loads(config), **change}))
        with pytest.raises(BundleError, match="kl: cannot be loaded as AutoencoderKL: "):
            load_decoder(tmp_path / "kl", SPEC)
    (tmp_path / "kl" / "config.json").write_text(config)
    (tmp_path / "kl" / WEIGHTS).rename(tmp_path / "kl" / "diffusion_pytorch_model.bin")
    with pytest.raises(BundleError, match="latentdc reads safetensors only"):
        load_decoder(tmp_path / "kl", SPEC)


def test_modules_that_spoil_gradients_are_refused() -> None:
    cast = kl()
    cast.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(
        InputError, match=r"layerwise casting puts the weights back .*do not call enable_layerwise_cast"
    ):
        autoencoder_decoder(cast, [1, 8, 8])
    with pytest.raises(InputError, match=r"autoencoder: has the hook AlignDevicesHook.*Load the model without offload"):
        autoencoder_decoder(cpu_offload(kl(), torch.device("cpu")), [1, 8, 8])
    small = kl()
    small.decoder.conv_in.to(torch.float8_e4m3fn)
    with pytest.raises(InputError, match=r"decoder.conv_in.weight: is torch.float8_e4m3fn, which has no gradient"):
        autoencoder_decoder(small, [1, 8, 8])
    with torch.device("meta"):
        empty = tiny_unet()
    with pytest.raises(InputError, match=r"conv_in.weight: has no values"):
        diffusion_decoder(empty, DDIM, [1, 8, 8])
    with pytest.raises(InputError, match='autoencoder UNet2DModel: model_class = "UNet2DModel": known autoencoders'):
        autoencoder_decoder(tiny_unet(), [1, 8, 8])
    with pytest.raises(InputError, match="diffusion model UNet2DModel: num_classes = 2"):
        diffusion_decoder(tiny_unet(), DDIM, [1, 8, 8], num_classes=2)
