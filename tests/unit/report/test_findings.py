from __future__ import annotations

import shlex
from fnmatch import fnmatchcase

import pytest
from analyses import NASTY, REPAIR, activation, analysis, even, layer, weight

from edgebm.report.blame import (
    blamed,
    db_text,
    fewest,
    gain_text,
    number,
    percent,
    shortened,
    spread_text,
    time_text,
)
from edgebm.report.findings import findings


def said(layers: list[dict[str, object]], full_db: float | None = 20.0) -> str:
    return " ".join(findings(analysis(layers, full_db)))


def culprit(**changes: object) -> list[dict[str, object]]:
    """One layer that makes nearly all of the noise, and two that do not."""
    return [layer("bad", 20.5, 31.0, **changes), *(layer(f"l{i}", 40.0, 20.1) for i in range(2))]


def test_shares_are_of_the_noise_that_all_layers_make() -> None:
    found = blamed(
        analysis([layer("a", 20.0, 30.0), layer("b", 30.0, 20.4), layer("c", None, 20)])
    )
    assert [round(each.share, 3) for each in found] == [0.909, 0.091, 0.0]
    assert [each.gain_db for each in found] == pytest.approx([10.0, 0.4, 0.0])
    assert [each.name for each in fewest(found)] == ["a"]
    assert len(fewest(blamed(even(10)))) == 8


def test_one_culprit_is_named_with_what_it_costs() -> None:
    text = said(culprit())
    assert "the worst output keeps 20.0 dB: a noise of 10 % of the signal" in text
    assert "bad (Conv) alone makes 98 % of it" in text
    assert "the output keeps 31.0 dB (11.0 dB more)" in text
    assert "--ignored bad" in text


def test_wide_inputs_are_the_cause_only_where_the_input_is_noisier() -> None:
    wide = activation(low=-90.0, high=410.0, common_low=-2.0, common_high=3.0, db=25.0)
    text = said(culprit(activation=wide))
    assert "The input of bad spans [-90, 410] while 99 % of the values lie in [-2, 3]" in text
    assert "mse" in text
    assert "spans" not in said(culprit(activation={**wide, "db": 60.0}))
    assert "spans" not in said(culprit(activation=activation(db=25.0)))


def test_values_that_are_cut_off() -> None:
    cut = activation(seen_high=30.0, clipped=0.018, db=20.0)
    text = said(culprit(activation=cut))
    assert "takes values in [-2, 30], but its integers cover [-2, 3]: 1.8 % of the values" in text
    assert "the observer minmax" in text


def test_uneven_channels() -> None:
    text = said(culprit(activation=activation(spread=150.0, median_peak=1.25, seen_high=193.0)))
    assert "largest channel reaches 193, the median one of 8 only 1.25" in text
    assert "equalize_channels" in text


def test_weights_are_the_cause_where_they_are_noisier() -> None:
    text = said(culprit(weight=weight(db=22.0)))
    assert "The weights of bad lose more than its input: they keep 22.0 dB" in text
    text = said(culprit(weight=weight(db=22.0, channels=1)))
    assert "one step for all channels" in text


def test_where_the_figures_tell_no_cause_none_is_named() -> None:
    text = said(culprit())
    assert "The input of" not in text
    assert "The weights of" not in text


def test_few_culprits_are_listed() -> None:
    layers = [layer(f"bad{i}", 23.0, 21.5) for i in range(2)]
    layers += [layer(f"l{i}", 45.0, 20.0) for i in range(8)]
    text = said(layers)
    assert "2 of the 10 layers make four fifths of it: bad0 (Conv), bad1 (Conv)." in text
    assert "keep them in float with --ignored bad0 --ignored bad1" in text


def test_noise_that_all_share_is_nobodys_fault() -> None:
    text = " ".join(findings(even(40)))
    assert "No single layer is to blame" in text
    assert "it takes 32 of 40 layers" in text
    assert "gains little" in text
    assert "--ignored" not in text


def test_one_that_is_worth_lifting_is_told_though_many_share_the_noise() -> None:
    given = even(40)
    given["layers"][7]["without_db"] = 23.6
    text = " ".join(findings(given))
    assert "Most is gained with l7 (Conv) in float: 3.6 dB." in text
    assert "gains little" not in text


def test_no_advice_where_nothing_needs_mending() -> None:
    text = " ".join(findings(even(40, full_db=41.0)))
    assert "nothing needs mending" in text
    assert "Try" not in text


def test_nothing_quantized_and_nothing_lost() -> None:
    assert said([], None) == "No layer runs on integers, so none is to blame."
    assert said([layer("a", None, None)], None).endswith("the outputs do not change at all.")


def test_without_the_only_noisy_layer_nothing_is_lost() -> None:
    text = said([layer("bad", 20.0, None), layer("a", None, 20.0), layer("b", None, 20.0)])
    assert "left in float, the outputs lose nothing" in text


def test_a_repair_is_told_and_ends_the_advice() -> None:
    given = analysis(culprit())
    text = " ".join(findings({**given, "repair": REPAIR}))
    assert "Repair lifted l0 to float: from 90.1 to 92.3, keeping 87 % of the time" in text
    assert "Try" not in text
    nothing = {**REPAIR, "lifted": []}
    assert "lifted no layer" in " ".join(findings({**given, "repair": nothing}))


def test_names_in_commands_are_quoted_and_stand_for_themselves() -> None:
    name = "block [3]/conv *'s"
    text = said([layer(name, 20.5, 31.0), *(layer(f"l{i}", 40.0, 20.1) for i in range(2))])
    command = text[text.index("--ignored") :].removesuffix(".")
    option, pattern = shlex.split(command)
    assert option == "--ignored"
    assert fnmatchcase(name, pattern)
    assert not fnmatchcase("block 3/conv x's", pattern)


def test_hostile_names_are_tamed_in_sentences_and_left_out_of_commands() -> None:
    for name in (NASTY, "x" * 4000):
        text = said([layer(name, 20.5, 31.0), *(layer(f"l{i}", 40.0, 20.1) for i in range(2))])
        assert text.isprintable()
        assert len(text) < 1000
        assert "--ignored" not in text


def test_texts() -> None:
    assert [percent(x) for x in (0, 1e-6, 0.0012, 0.0994, 0.0996, 0.5, 1)] == [
        *("0 %", "< 0.1 %", "0.1 %", "9.9 %", "10 %", "50 %", "100 %")
    ]
    assert db_text(None) == db_text(140.0) == "over 100 dB"
    assert db_text(-3.14) == "-3.1 dB"
    assert number(0.0) == "0"
    assert shortened("abcdefghij", 6) == "ab…ghij"
    one, two = blamed(analysis([layer("a", 20.0, 19.98), layer("b", 20.0, None)]))
    assert gain_text(one) == "0 dB"
    assert gain_text(two) == "all of it"
    assert spread_text(weight(channels=1)) == "-"
    assert spread_text(weight(spread=None)) == "over 1000x"
    assert time_text(layer("a", 1.0, 1.0)) == ""
    assert time_text(layer("a", 1.0, 1.0, float_us=12.34)) == "12.3 → -"
