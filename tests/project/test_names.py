import pytest

from gradlab._names import choose

VALID = ("gru", "elman", "lstm")


@pytest.mark.parametrize("name", VALID)
def test_a_valid_name_passes(name):
    choose("cell", name, VALID)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lstn", "unknown cell 'lstn'; did you mean 'lstm'? valid: elman, gru, lstm"),
        ("LSTM", "unknown cell 'LSTM'; did you mean 'lstm'? valid: elman, gru, lstm"),
        ("qqq", "unknown cell 'qqq'; valid: elman, gru, lstm"),
        (3, "unknown cell 3; valid: elman, gru, lstm"),
    ],
)
def test_the_message_names_the_thing_the_nearest_and_the_choices(name, message):
    with pytest.raises(ValueError) as error:
        choose("cell", name, VALID)
    assert str(error.value) == message


def test_an_iterator_of_valid_names_is_read_once():
    with pytest.raises(ValueError, match="valid: a, b"):
        choose("letter", "zzz", iter("ba"))
