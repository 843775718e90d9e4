"""Where the result goes: never over something else."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import ARCH, command


def test_an_output_folder_that_exists(refused):
    Path("out").mkdir()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "out"), says=("out exists already", "--output"))
    Path("file").touch()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "file"), says="file exists already")
    refused(*command("absent.pt", "absent", "--output", "out"), says="out exists already")  # before all else


def test_an_output_folder_that_cannot_be_made(refused):
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "digits.pt/out"),
        says=("digits.pt/out cannot be written", "--output"),
    )


def test_a_stopped_run_is_not_overwritten(refused):
    Path("out.partial/checkpoint").mkdir(parents=True)
    Path("out.partial/checkpoint/state.pt").write_bytes(b"?")
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "out"),
        says=("out.partial holds an unfinished run", "--resume"),
    )


def test_nothing_to_resume(refused):
    refused(*command("digits.pt", "digits", *ARCH, "--resume"), says="no unfinished run of digits")
