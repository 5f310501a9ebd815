"""Serve and use APF as two processes: the cloud side, and the user's.

Only click is imported at the top, so that ``bench --help`` stays quick.
"""

from pathlib import Path
from typing import Any

import click

_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
_THREADS = click.option(
    "--threads", type=click.IntRange(1), help="Threads torch computes with. [default: all cores]"
)


@click.group(epilog="Example: bench apf protect a.png --server http://127.0.0.1:8700 --out protected")
def apf() -> None:
    """Protect photos with APF's two sides: `serve` sees gradients, `protect` has the photos."""


@apf.command(epilog="Example: bench apf serve --weights apf.safetensors --port 8700")
@click.option(
    "--weights",
    required=True,
    type=click.Path(path_type=Path),
    help="A .safetensors by `bench train apf`, with its card beside it.",
)
@click.option(
    "--modules", type=click.Choice(["2", "3"]), default="3", show_default=True, help="The U-Net, or all."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; no TLS of its own."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8700, show_default=True, help="0 for any that is free."
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    default=16 << 20,
    show_default=True,
    help="Larger requests are refused; a photo takes 37,632.",
)
@_DEVICE
@_THREADS
def serve(weights: Path, modules: str, host: str, port: int, max_bytes: int, **machine: Any) -> None:
    """Answer gradients with perturbations until interrupted. No photo can be sent here."""
    from attacks.apf import wire
    from attacks.apf.attack import cloud_side
    from attacks.apf.card import SHELF
    from attacks.apf.server import application
    from attacks.apf.server import serve as listen
    from bench.run.device import use_device

    device, _ = use_device(machine["device"], machine["threads"])
    card = SHELF.checked(weights)
    cloud = cloud_side(weights, 2 if modules == "2" else 3, device)
    about = wire.About(
        version=wire.VERSION,
        probe=card.probe,
        server=card.server,
        domain=card.domain,
        modules=int(modules),
        size=cloud.size,
        weights_sha256=card.sha256,
        max_bytes=max_bytes,
    )
    try:
        listen(application(cloud, about), host, port, lambda url: click.echo(f"APF server at {url}"))
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)


@apf.command(epilog="Example: bench apf protect a.png b.png --server http://127.0.0.1:8700 --out protected")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--server", required=True, metavar="URL", help="Of `bench apf serve`.")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.option(
    "--backbone", metavar="PROBE", help="The probe model. [default: what the server was trained for]"
)
@click.option(
    "--eps", type=click.IntRange(1, 16), default=8, show_default=True, help="L∞ bound, grey levels."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random draws.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds to wait."
)
@_DEVICE
@_THREADS
def protect(
    photos: tuple[Path, ...], server: str, out: Path, backbone: str | None, eps: int, seed: int, timeout: float,
    **machine: Any,
) -> None:  # fmt: skip
    """Protect PHOTOS of one identity; what is written are aligned 112×112 crops as PNG.

    Give two photos or more where there are: each is pushed away from another one. Photos stay here; a
    gradient of int8 grey levels is sent. Nothing is written unless the server's whole answer is verified.
    """
    from attacks.apf import client
    from attacks.apf.attack import APF
    from attacks.apf.end import image_gradients, other_photos
    from bench.contracts import Context, Faces
    from bench.errors import UsageError
    from bench.plugins import factory, registry
    from bench.run.device import use_device

    paths = client.outputs(photos, out)
    crops = client.read_crops(photos)
    remote = client.Server(server, timeout)
    about = remote.about()
    if backbone not in (None, about.probe):
        raise UsageError(
            f"the server's weights are for gradients of '{client.printable(about.probe)}', not of '{backbone}'. Say "
            "that with --backbone if you know and trust it, or ask another server."
        )
    if backbone is None and about.probe not in registry.BACKBONES.entries():
        # What a server says must not choose a file of this machine to run.
        raise UsageError(
            f"the server's weights are for gradients of '{client.printable(about.probe)}', which is no registered "
            "backbone. If you know and trust it, name it with --backbone; otherwise ask another server."
        )
    device, _ = use_device(machine["device"], machine["threads"])
    probe = factory.backbone(about.probe)
    probe.load(device)
    names = tuple(photo.name for photo in photos)
    faces = Faces(crops.to(device).float() / 255, names, ("the identity",) * len(names))
    attack = APF(APF.Params(eps=eps))
    ctx = Context(seed=seed, device=device, backbones=(probe,))
    gradient = image_gradients(faces, other_photos(faces), probe, ctx, attack.ascent)
    answer = remote.transfer(gradient, about.max_bytes)
    protected = client.eight_bits(answer.added_to(faces.images))
    client.check_changed(crops, protected, photos)
    client.write_photos(protected, paths)
    click.echo(f"{len(paths)} protected in {out}, with {probe.card.name} here and {server} there.")
