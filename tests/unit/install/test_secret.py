"""Where secrets come from, and that they are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from lab.core.errors import UsageError
from lab.install import secret
from lab.install.secret import MASK, Redactor, checked_key, new_password, product_key

KEY = "BCDFG-HJKMP-QRTVW-XY234-67892"


def test_from_the_environment_which_then_has_it_no_more() -> None:
    environment = {secret.KEY_VARIABLE: f" {KEY.lower()}\n", "OTHER": "x"}
    assert product_key(environment).get_secret_value() == KEY
    assert environment == {"OTHER": "x"}


def test_the_process_s_own_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_taken", {})
    monkeypatch.delenv(secret.KEY_FILE_VARIABLE, raising=False)
    monkeypatch.setenv(secret.KEY_VARIABLE, KEY)
    assert product_key().get_secret_value() == KEY
    assert secret.KEY_VARIABLE not in secret.os.environ
    assert product_key().get_secret_value() == KEY
    assert KEY not in repr(secret._taken)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    assert product_key({secret.KEY_FILE_VARIABLE: str(path)}).get_secret_value() == KEY
    with pytest.raises(UsageError, match="cannot read the file that PVLAB_PRODUCT_KEY_FILE names"):
        product_key({secret.KEY_FILE_VARIABLE: str(tmp_path / "none")})


def test_none_says_how_to_give_one() -> None:
    with pytest.raises(UsageError, match=r"no product key for Windows .*PVLAB_PRODUCT_KEY_FILE"):
        product_key({})


@given(st.text(max_size=60))
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    try:
        found = checked_key(text, "here").get_secret_value()
        said = ""
    except UsageError as error:
        found, said = "", str(error)
    assert found in ("", text.strip().upper())
    assert len(text.strip()) < 7 or text.strip() not in said


def test_passwords_are_all_different_and_complex() -> None:
    words = {new_password().get_secret_value() for _ in range(50)}
    assert len(words) == 50
    for word in words:
        assert word.isalnum()
        assert any(map(str.isupper, word))
        assert any(map(str.islower, word))
        assert any(map(str.isdigit, word))


def test_redacted_in_every_form() -> None:
    redact = Redactor([SecretStr(KEY), SecretStr("Geheim12")])
    text = f"a {KEY} b {KEY.lower()} c {KEY.replace('-', '')} d GEHEIM12 e"
    assert redact(text) == f"a {MASK} b {MASK} c {MASK} d {MASK} e"
    assert Redactor([SecretStr("")])("nothing") == "nothing"


def test_a_secret_inside_another_goes_as_a_whole() -> None:
    assert Redactor([SecretStr("abc"), SecretStr("abcdef")])("xabcdefx") == f"x{MASK}x"
