"""The project as a whole: it installs as a wheel, its Makefile explains itself, and every file is found."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import json, os, sys, warnings
settings = dict(os.environ)
import stages
from fpt import api
assert not {"TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"} & {*os.environ} - {*settings}
warnings.warn("its own")
folder, = sys.argv[1:]
few = "train.updates=2", "train.eval_every=2", "task.train_examples=64", "task.valid_examples=8", "schedule=pt"
config = api.configure("task=boolq", *few, "engine=deepspeed", f"run.dir={folder}")
result = api.train(config)
api.score(folder)
with api.predictor(folder):
    warnings.warn("its own, while a predictor is open")
print(json.dumps([result.result["updates"], api.__file__, stages.__file__]))
"""


def _tracked(*folders: str) -> list[str]:
    """What git has, of some folders or in all."""
    listed = ["git", "ls-files", "-z", *folders]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in files.split("\0") if name]


@pytest.fixture(scope="module")
def installed(trains: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, away from the checkout."""
    build = tmp_path_factory.mktemp("build")
    source = build / "source"
    for name in _tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", str(build), str(source)], check=True)
    target = build / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), *map(str, build.glob("*.whl"))], check=True)
    return target


def test_the_wheel_has_every_file(installed: Path) -> None:
    """All that git has of fpt, stages and conf, and nothing else."""
    tracked = _tracked("fpt", "stages", "conf")
    wanted = {f"fpt/{name}" if name.startswith("conf/") else name for name in tracked}
    found = {str(file.relative_to(installed)) for part in ("fpt", "stages") for file in (installed / part).rglob("*")}
    assert wanted - found == set()
    assert not (installed / "tests").exists()


def test_a_program_trains_with_the_wheel_and_sees_its_own_warnings_alone(installed: Path, tmp_path: Path) -> None:
    """Nothing of the checkout is needed; neither the program's warnings nor its environment are changed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "run")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    updates, *files = json.loads(done.stdout.splitlines()[-1])
    assert updates == 2
    assert all(file.startswith(str(installed)) for file in files)
    assert [line.partition(": ")[2] for line in done.stderr.splitlines() if "Warning" in line] == [
        "UserWarning: its own",
        "UserWarning: its own, while a predictor is open",
    ]


def test_make_explains_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"\.PHONY: (.*)", text)
    assert phony
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony[1].split():
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE)


def test_make_run_passes_its_variables_through() -> None:
    words = ["run", "TASK=boolq", "MODEL=t5-large", "SCHEDULE=ld", "ARGS=train.updates=500 seed=1"]
    quiet = ["make", "--dry-run", "--no-print-directory", *words]
    shown = subprocess.run(quiet, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = shown.splitlines()[-1].split()
    assert command[1:] == ["train", "task=boolq", "model=t5-large", "schedule=ld", "train.updates=500", "seed=1"]
    assert command[0].endswith("bin/fpt")


def test_every_module_says_what_it_is_for() -> None:
    for file in [*ROOT.glob("fpt/**/*.py"), *ROOT.glob("stages/**/*.py"), *ROOT.glob("tests/**/test_*.py")]:
        assert file.read_text().startswith('"""'), file
