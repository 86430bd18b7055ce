"""Write docs/commands.md anew from its template beside this module: every command run, its output what it printed.

Needs CRYPTO_ML_SHARED for the command `handover`, which is shown on the real handed-over objects; takes some minutes.

In the template a block of ```console has the commands, each on a line that begins with `$ `, and no output. What stands
in a comment `<!-- sh … -->` is run and not shown; variables that it sets may be named in commands as `{NAME}`, and are
shown with their values. `<!-- lines N -->` before a block cuts each output after N lines.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
TEMPLATE: Final = HERE / "commands.md"
DOCUMENT: Final = ROOT / "docs" / "commands.md"

PART: Final = re.compile(
    r"<!-- sh\n(?P<hidden>.*?)-->\n|<!-- lines (?P<lines>\d+) -->\n|```console\n(?P<block>.*?)```\n", re.DOTALL
)
END: Final = "--- end of the output of one command ---"
COLUMNS: Final = 110


class Shell:
    """One bash for all commands, so that what one sets the next finds; with what each of them prints."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """What a command prints, errors too; where its exit code is not 0, that at the end."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\ncode=$?; [ $code = 0 ] || echo \"(exit code $code)\"; echo '{END}'\n")
        stdin.flush()
        lines: list[str] = []
        for line in stdout:
            if line.rstrip("\n") == END:
                return "".join(lines)
            lines.append(line)
        raise RuntimeError(f"the shell ended at: {command}")

    def expanded(self, text: str) -> str:
        """A text with each {NAME} replaced by the value of the shell's variable."""
        return re.sub(r"\{([A-Z_]+)\}", lambda name: self.run(f'printf "%s\\n" "${name[1]}"').strip(), text)


def written(template: str, shell: Shell, hide: dict[str, str]) -> str:
    """The template with the output of every command; hide: what is shown instead of what differs on every machine."""
    shown, end, most = [], 0, None
    for part in PART.finditer(template):
        shown.append(shell.expanded(template[end : part.start()]))
        end = part.end()
        if part["hidden"] is not None:
            print(shell.run(part["hidden"]), end="", file=sys.stderr)
        elif part["lines"] is not None:
            most = int(part["lines"])
        else:
            shown.append("".join(["```console\n", *_outputs(part["block"], shell, most), "```\n"]))
            most = None
    text = "".join([*shown, template[end:]])
    for private, instead in hide.items():
        text = text.replace(private, instead)
    return text


def _outputs(block: str, shell: Shell, most: int | None) -> Iterator[str]:
    for line in block.splitlines():
        command = shell.expanded(line.removeprefix("$ "))
        print(f"$ {command}", file=sys.stderr)
        yield f"$ {command}\n"
        output = shell.run(command).splitlines()
        kept = output if most is None or len(output) <= most else [*output[:most], "…"]
        yield from (f"{line.rstrip()}\n" for line in kept)


@contextlib.contextmanager
def demo(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A demo that runs meanwhile: the variables that it prints."""
    process = subprocess.Popen(
        ["crypto-ml", "demo", "--state", str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        exports = {}
        for line in process.stdout:
            if found := re.match(r"\s+export (\w+)=(.*)", line):
                exports[found[1]] = found[2].strip("'")
                if found[1] == "DAGSTER_HOME":  # the last one
                    break
        yield exports
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def main() -> None:
    """Run the template's commands in an empty folder, beside a demo of their own."""
    shared = Path(os.environ.get("CRYPTO_ML_SHARED", ""))
    if not (shared / "handover").is_dir():
        sys.exit("CRYPTO_ML_SHARED must name the folder with the handed-over objects")
    with TemporaryDirectory() as name:
        folder = Path(name) / "work"
        folder.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "CRYPTO_ML_"))}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": str(COLUMNS)}
        with demo(Path(name) / "demo", environment) as exports:
            shell = Shell(folder, environment | exports | {"CRYPTO_ML_SHARED": str(shared)})
            hide = {
                str(shared): "/shared",
                str(folder): "/home/you",
                name: "/home/you",
                str(ROOT): "/home/you/crypto_ml",
                str(Path(sys.prefix).resolve()): "/home/you/crypto_ml/.venv",  # that of ROOT may be a link
            }
            DOCUMENT.write_text(written(TEMPLATE.read_text(encoding="utf-8"), shell, hide), encoding="utf-8")


if __name__ == "__main__":
    main()
