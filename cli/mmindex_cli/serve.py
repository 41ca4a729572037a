"""``serve``: serve a search page and an HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmindex.core.errors import MissingPackageError
from mmindex_cli.common import store_path
from mmindex_cli.options import DeviceOption, StoreOption

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 selects a free port.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with a secret for clients; required for any address except loopback.",
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Additional host name of the service. You can repeat this option.",
    ),
]
CertOption = Annotated[Path | None, typer.Option(metavar="FILE", help="TLS certificate (PEM).")]
KeyOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Private key of the certificate (PEM).")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for thumbnails. [default: ~/.cache/mmindex/serve/...]"
    ),
]
LocationOption = Annotated[
    bool, typer.Option("--with-location", help="Show the locations of photographs.")
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    token: TokenOption = None,
    allow_host: AllowHostOption = None,
    certfile: CertOption = None,
    keyfile: KeyOption = None,
    cache: CacheOption = None,
    with_location: LocationOption = False,
    open_page: OpenOption = False,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Serve a search page and an HTTP API for the published version, and switch to new versions.

    Example: mmindex serve --open
    """
    try:
        import prometheus_client  # noqa: F401 # the extra is installed as a whole or not at all
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"serve needs the package {error.name}", "pip install 'mmindex[serve]'"
        ) from error
    from mmindex.core.system import calm_openmp

    calm_openmp()
    from mmindex.serve.app import listen, run
    from mmindex.serve.service import Service
    from mmindex.serve.settings import ServeSettings, read_token

    settings = ServeSettings(
        store=store_path(store),
        host=host,
        port=port,
        token=None if token is None else read_token(token),
        allow_hosts=tuple(allow_host or ()),
        certfile=certfile,
        keyfile=keyfile,
        device=device,
        cache=cache,
        with_location=with_location,
    )
    settings.check()
    with listen(settings) as server:  # before the model is loaded, which takes seconds
        service = Service.open(settings)
        name = f"[{host}]" if ":" in host else host
        scheme = "http" if certfile is None else "https"
        address = f"{scheme}://{name}:{server.getsockname()[1]}/"

        def started() -> None:
            typer.echo(f"serving version {service.live.current.number} at {address}")
            if open_page:
                import webbrowser

                webbrowser.open(address)

        run(service, server, started)
