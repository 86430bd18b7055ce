"""Who is let in, by which token, to do what."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_ml.cli import main
from crypto_ml.service.running import NotOpen, PortTaken, listen, require_open
from crypto_ml.service.tokens import ANYBODY, BadTokens, Tokens, is_own_name, new_token


def test_a_token_is_known_by_its_line_which_does_not_have_it(tmp_path: Path) -> None:
    token, line = new_token("charts", ["read"])
    other, other_line = new_token("web", ["predict", "read"])
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\n\n{line}  # the charts of the second floor\n")
    known = Tokens.read(other_line, file)
    charts, web = known.caller(token), known.caller(other)
    assert charts and (charts.name, charts.rights) == ("charts", frozenset({"read"}))
    assert web and (web.name, web.rights) == ("web", frozenset({"predict", "read"}))
    assert not any(
        known.caller(wrong) for wrong in (None, "", token[:-1], token + "x", line, line.split()[2], "\udcff")
    )
    assert token not in line + repr(known)
    assert line.split()[2] not in repr(known)


def test_without_tokens_anybody_is_let_in_and_nobody_from_elsewhere() -> None:
    nobody = Tokens.read(" ;\n")
    assert nobody.caller(None) is ANYBODY
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        require_open(host, nobody)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):  # noqa: S104 - what must be refused
        with pytest.raises(NotOpen, match="--new-token"):
            require_open(host, nobody)
    require_open("0.0.0.0", Tokens.read(new_token("a", ["read"])[1]))  # noqa: S104


def test_a_file_of_tokens_may_come_from_windows_and_one_that_names_nobody_lets_nobody_in(tmp_path: Path) -> None:
    file, (token, line) = tmp_path / "tokens", new_token("charts", ["read"])
    file.write_bytes(f"\ufeff{line}\r\n\r\n".encode())
    assert Tokens.read("", file).caller(token)
    for nobody in ("", "# nobody yet\n"):
        file.write_text(nobody)
        with pytest.raises(BadTokens, match="names nobody who may ask"):
            Tokens.read("", file)
        assert Tokens.read(line, file).caller(token)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.0.0.1:", True),
        ("[::1]:8000", True),
        ("LOCALHOST:80", True),
        ("", False),
        ("localhost.evil.example", False),
        ("127.0.0.1:x@evil.example", False),
        ("localhost:80:evil", False),
        ("[::1]evil", False),
        ("evil@localhost", False),
    ],
)
def test_a_name_is_this_machines_own_or_it_is_not(host: str, *, own: bool) -> None:
    assert is_own_name(host) is own


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("charts read", "NAME RIGHTS SHA256"),
        (f"charts write {'0' * 64}", "rights are predict or read"),
        (f"charts read,write {'0' * 64}", "rights are predict or read"),
        (f"ch/arts read {'0' * 64}", "names nobody"),
        ("charts read cml_the-token-itself", "no sha256"),
    ],
)
def test_a_line_that_lets_nobody_in_is_refused_and_never_repeats_what_may_be_a_token(line: str, said: str) -> None:
    with pytest.raises(BadTokens, match=said) as raised:
        Tokens.read(line)
    assert "the-token-itself" not in str(raised.value)


def test_what_keeps_the_service_from_starting_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadTokens, match="CRYPTO_ML_SERVE_TOKENS_FILE"):
        Tokens.read("", tmp_path / "none")
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(PortTaken, match="choose another with --port"):
            listen("127.0.0.1", int(port))
        for arguments, said in ((["--port", port], "end what listens there"), (["--host", "0.0.0.0"], "--new-token")):  # noqa: S104
            ended = CliRunner().invoke(main, ["serve", *arguments])
            assert (ended.exit_code, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
            assert said in ended.stderr
    made = CliRunner().invoke(main, ["serve", "--new-token", "charts", "--rights", "read", "--json"])
    told = json.loads(made.stdout)
    assert Tokens.read(told["line"]).caller(told["token"])
