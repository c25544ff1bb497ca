"""Messages in secrets: round trips, errors for long messages, and noise that must not pass for text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgan.recipes.stegastamp.message import (
    bits_to_message,
    layout_for,
    message_to_bits,
    raw_bits,
)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=7))
def test_seven_characters_come_back_from_a_hundred_bits(message):
    bits = message_to_bits(message, 100)
    assert bits.shape == (100,) and set(bits.tolist()) <= {0.0, 1.0}
    assert bits_to_message(bits) == message


@given(st.text(max_size=7))
def test_every_message_comes_back_or_is_refused(message):
    try:
        bits = message_to_bits(message, 100)
    except ValueError as error:
        assert repr(message) in str(error)
    else:
        assert bits_to_message(bits) == message.rstrip(" ")


@pytest.mark.parametrize("message", ["a\nb", "\0", "\u200d", "\ud800"])
def test_a_message_that_would_pass_for_noise_is_refused(message):
    with pytest.raises(ValueError, match="the message must have printable characters only, got"):
        message_to_bits(message, 100)


@given(st.sets(st.integers(0, 95), max_size=5))
def test_five_wrong_bits_of_a_hundred_are_corrected(wrong):
    bits = message_to_bits("Stega!!", 100)
    for index in wrong:
        bits[index] = 1 - bits[index]
    assert bits_to_message(bits) == "Stega!!"


def test_the_packet_is_the_one_of_the_original_scripts():
    # encode_image.py: bytearray(secret + ' ' * (7 - len(secret)), 'utf-8'), then bchlib.BCH(137, 5).encode,
    # bits of each byte from the most significant one, then four zeros.
    bits = message_to_bits("Hi", 100)
    text = "".join(f"{byte:08b}" for byte in b"Hi     ")
    assert "".join(str(int(b)) for b in bits[:56]) == text
    assert bits[96:].tolist() == [0.0] * 4


@pytest.mark.parametrize(("secret_size", "characters", "errors"), [(32, 2, 3), (64, 4, 5), (100, 7, 5)])
def test_shorter_secrets_hold_fewer_characters(secret_size, characters, errors):
    layout = layout_for(secret_size)
    assert layout.characters == characters
    assert layout.errors >= errors - 1
    message = "abcdefg"[:characters]
    bits = message_to_bits(message, secret_size)
    bits[: layout.errors] = 1 - bits[: layout.errors]
    assert bits_to_message(bits) == message


@pytest.mark.parametrize("message", ["12345678", "grüße!!"])
def test_a_message_that_does_not_fit_names_its_length(message):
    taken = len(message.encode())
    with pytest.raises(ValueError, match=rf"{message!r} takes {taken} bytes.*100 bits holds 7"):
        message_to_bits(message, 100)


def test_a_secret_too_short_for_a_code_points_to_raw_bits():
    with pytest.raises(ValueError, match=r"12 bits is too short .* --raw"):
        message_to_bits("a", 12)


def test_random_bits_are_no_message():
    random = torch.Generator().manual_seed(0)
    secrets = torch.randint(0, 2, (2000, 100), generator=random).float()
    assert [bits_to_message(bits) for bits in secrets] == [None] * 2000


def test_raw_bits():
    assert raw_bits("0110", 4).tolist() == [0.0, 1.0, 1.0, 0.0]
    for text in ("011", "01102", "01x0"):
        with pytest.raises(ValueError, match="raw secrets are 4 characters 0 or 1, got"):
            raw_bits(text, 4)
