"""``firstread train features``: encode a manifest once, for every job that trains on features."""

from pathlib import Path
from typing import Annotated

import typer


def features(
    manifest: Annotated[Path, typer.Argument(help="CSV made by `firstread train manifest`")],
    bundle: Annotated[
        str, typer.Option(help="Folder of the bundle that encodes, or NAME or NAME@VERSION")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder of the store")],
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda" or "cuda:1"')] = "auto",
    spatial: Annotated[
        bool, typer.Option(help="Keep the spatial maps, which INSIGHT needs and transfer does not")
    ] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass")] = 32,
    shard_rows: Annotated[int, typer.Option(min=1, help="Images a file")] = 256,
) -> None:
    """Encode a manifest once to a checksummed store of embeddings and spatial maps.

    Stopped and started again it goes on where it was, to the same bytes. Several GPUs:
    `torchrun --nproc-per-node 8 --no-python firstread train features ...`.
    """
    from firstread.naming_bundles import named_bundle
    from firstread.torchrun import device_of_rank, read_ranks
    from model.training.feature_encoding import encode_manifest
    from model.training.manifests import read_manifest

    ranks = read_ranks()
    store = encode_manifest(
        read_manifest(manifest),
        named_bundle(bundle),
        out,
        device_of_rank(device, ranks),
        spatial=spatial,
        batch_size=batch_size,
        shard_rows=shard_rows,
        rank=ranks.rank,
        processes=ranks.processes,
        say=lambda line: typer.echo(line, err=True),
    )
    if store is not None:
        typer.echo(f"{len(store.rows)} images, {store.embeddings.shape[1]} features each: {out}")
