"""Pipeline packages: the YAML that the Kubeflow UI and its API take."""

from pathlib import Path

from kfp import compiler

from pipelines.compress import define


def compile_all(folder: Path) -> list[Path]:
    """Compile every pipeline into ``folder``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compress.yaml"
    aside = folder / ".compress.partial.yaml"
    compiler.Compiler().compile(define(), str(aside))
    aside.replace(path)
    return [path]
