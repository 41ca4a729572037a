#!/usr/bin/env bash
# Create a separate environment for each program that the benchmarks compare with mmindex.
#
#     benchmarks/peers.sh FOLDER [NAME ...]     NAME: ann, autofaiss, clip-retrieval, img2dataset
#     export MMINDEX_PEERS=FOLDER               so that the benchmarks find the environments
#
# With PEERS_TORCH=DIR, clip-retrieval uses the torch in this site-packages folder, which saves 5 GB.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?"usage: $0 FOLDER [NAME ...]"}
shift
names=("$@")
if [ ${#names[@]} -eq 0 ]; then names=(ann autofaiss clip-retrieval img2dataset); fi

for name in "${names[@]}"; do
    "${PYTHON:-python3}" -m venv "$folder/$name"
    if [ "$name" = clip-retrieval ] && [ -n "${PEERS_TORCH:-}" ]; then
        "$folder/$name/bin/python" -c 'import site, sys, pathlib
pathlib.Path(site.getsitepackages()[0], "zz_torch.pth").write_text(sys.argv[1] + "\n")' "$PEERS_TORCH"
    fi
    "$folder/$name/bin/pip" install --quiet --disable-pip-version-check -r "$here/peers/$name.txt"
    echo "$name: ready in $folder/$name"
done
