#!/bin/sh
# install.sh DEST [UV] : a real vLLM 0.32.0 (CPU) in the venv DEST, and two tiny models, DEST/model and DEST/model-unsettled.
# With UV, the path of a uv, it installs with that, which is faster than pip. Returns at once when all is there; after an
# interruption, run it again. Needs Python 3.11 (env PYTHON) and 6 GB.
set -e
dest=${1:?usage: install.sh DEST [UV]} uv=$2
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3.11} version=0.32.0+cpu

# The copy of the requirements is made last, so it says that these very pins were installed and work.
if ! cmp -s "$here/requirements.txt" "$dest/requirements.txt" || ! [ -x "$dest/bin/vllm" ]; then
    # Compiled, since vLLM imports 10,000 modules in each of its processes.
    if [ -n "$uv" ]; then
        "$uv" venv -q --allow-existing --python "$python" "$dest"
        "$uv" pip install -q --python "$dest/bin/python" --no-deps --require-hashes --compile-bytecode -r "$here/requirements.txt"
    else
        "$python" -m venv "$dest"
        "$dest/bin/pip" install -q --no-deps --require-hashes -r "$here/requirements.txt"
    fi
    # vLLM asks for the version of a distribution named "vllm", and takes the platform CPU from it.
    site=$("$dest/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$site/vllm-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$version" > "$site/vllm-$version.dist-info/METADATA"
    [ "$("$dest/bin/vllm" --version)" = "$version" ]
    cp "$here/requirements.txt" "$dest/requirements.txt"
fi

make() { # make NAME [ARGUMENTS] : DEST/NAME, whole or not at all
    name=$1
    shift
    [ ! -d "$dest/$name" ] || return 0
    rm -rf "$dest/$name.part"
    "$dest/bin/python" "$here/make_tiny.py" "$dest/$name.part" "$@"
    mv "$dest/$name.part" "$dest/$name"
}
make model
make model-unsettled --layers 4 --hidden 128 --seed 5 --init 0.3
