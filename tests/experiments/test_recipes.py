from __future__ import annotations

import re
from typing import Any

import pytest

from algorithms.cpo import CPO
from algorithms.ddpo import DDPO
from algorithms.dpo import DPO
from algorithms.flow_grpo import FlowGRPO
from algorithms.kto import KTO
from algorithms.npo import NPO
from algorithms.smpo import SmPO
from algorithms.wrapping import Wrapper
from bench import Algorithm
from bench.cli.options import parse_budget, parse_overrides
from bench.core.errors import UserError
from bench.experiments.method import Method
from bench.experiments.recipes import (
    about_settings,
    fit_batch,
    make_method,
    recipe_of,
    resolve,
    run_name,
    without_recipe,
)
from bench.models.find import FoundModel, find_model
from bench.models.registry import MODELS
from bench.training.algorithm import ALGORITHMS
from bench.training.settings import TrainingSettings

TRIED = DPO.recipes["tiny"]


def test_fields_and_values_are_told_apart_at_the_first_equals_sign() -> None:
    assert parse_overrides(["beta=2000", "reward=a=b"]) == {"beta": "2000", "reward": "a=b"}


@pytest.mark.parametrize("typed", ["beta", "=3", "beta=", ""])
def test_what_is_no_assignment_is_refused_with_an_example(typed: str) -> None:
    with pytest.raises(UserError, match=f"{re.escape(repr(typed))} is not of the form field=value, for example"):
        parse_overrides([typed])


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--set sets beta twice"):
        parse_overrides(["beta=1", "steps=3", "beta=2"])


def test_without_a_recipe_the_defaults_hold() -> None:
    assert resolve("dpo", DPO, "nothing-like-it", {}) == (DPO(beta=2000.0), TrainingSettings())


def test_online_methods_train_adapters_where_there_is_no_recipe() -> None:
    assert resolve("ddpo", DDPO, "nothing-like-it", {})[1].trainable == "lora"
    assert resolve("ddpo", DDPO, "nothing-like-it", {"trainable": "full"})[1].trainable == "full"


def test_defaults_are_said_where_there_is_no_recipe() -> None:
    settings = TrainingSettings(steps=7, global_batch_size=16, learning_rate=1e-4)
    assert without_recipe("dpo", DPO, "tiny", settings) is None
    assert "the settings of cpo for sdxl are untested: ours" in str(without_recipe("cpo", CPO, "sdxl", settings))
    note = without_recipe("dpo", DPO, "nothing-like-it", settings)
    assert note is not None
    assert note.startswith(
        "no published or tested settings of dpo for nothing-like-it (there are some for tiny, sd15, sdxl); using defaults"
    )
    assert "7 steps, batch size 16, learning rate 0.0001" in note


def test_the_recipe_of_the_model_holds_where_nothing_is_overridden() -> None:
    algorithm, settings = resolve("dpo", DPO, "sd15", {"warmup_steps": "7"})
    assert algorithm == DPO(beta=5000.0)
    assert (settings.steps, settings.global_batch_size, settings.learning_rate, settings.warmup_steps) == (
        2000,
        2048,
        2.048e-5,
        7,
    )


def test_of_two_recipes_for_a_model_one_is_chosen_by_name() -> None:
    found = FoundModel("sd15", MODELS.get("sd15"), "sd15")
    paper, script = (make_method("kto", found, changes, 10_000) for changes in ({}, {"recipe": "script"}))
    for method, name, steps, warmup, beta in (
        (paper, "paper", 10_000, 1000, 10_000.0),
        (script, "script", 20_000, 200, 2000.0),
    ):
        assert isinstance(method.algorithm, KTO)
        assert (method.label, method.settings.steps, method.settings.warmup_steps, method.algorithm.beta) == (
            name, steps, warmup, beta,
        )  # fmt: skip
    assert make_method("kto", found, {"recipe": "paper"}, 10_000).settings == paper.settings
    changed = [make_method("kto", found, {"beta": "1", **more}, 10_000) for more in ({}, {"recipe": "script"})]
    assert changed[0].label != changed[1].label
    assert (changed[1].settings.steps, changed[1].changed) == (20_000, {"beta": "1", "recipe": "script"})


@pytest.mark.parametrize(
    ("name", "algorithm", "model", "sentence"),
    [
        ("kto", KTO, "sd15", "kto has no recipe 'own' for sd15: there are paper, script"),
        ("dpo", DPO, "sd15", "dpo has no recipe 'own' for sd15: there are recipe"),
        ("kto", KTO, "sdxl", "kto has no recipe 'own' for sdxl: there is none; leave --set recipe out"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused_with_those_that_are(
    name: str, algorithm: type[Algorithm], model: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        resolve(name, algorithm, model, {"recipe": "own"})


def test_where_settings_come_from_is_said_with_the_other_recipes() -> None:
    def about(name: str, model: str, **changed: str) -> list[str]:
        found = find_model(model)
        algorithm, settings = resolve(name, ALGORITHMS.get(name), found.recipe, changed)
        return list(about_settings(Method(name, algorithm, settings, "", changed), found))

    own = recipe_of(FlowGRPO, "sd3")
    assert about("flow-grpo", "sd3") == [
        "settings: recipe with rewards=pickscore",
        f"their source: {own.source}",
        "other recipes (--set recipe=NAME): fast",
    ]
    settings, _, others = about("flow-grpo", "sd3", recipe="fast", rewards="hpsv2")
    assert (settings, others) == ("settings: fast with rewards=hpsv2", "other recipes (--set recipe=NAME): recipe")
    assert about("sft", "flux") == ["settings: defaults"]
    assert about("dpo", "tiny-flow", steps="3")[0] == "settings: tiny-recipe with steps=3"


def test_overrides_reach_the_algorithm_and_the_training() -> None:
    algorithm, settings = resolve("smpo", SmPO, "tiny", {"gamma": "3", "inversion": "exact", "trainable": "lora"})
    assert isinstance(algorithm, SmPO)
    assert (algorithm.gamma, algorithm.inversion, settings.trainable) == (3.0, "exact", "lora")


def test_an_unknown_field_is_refused_with_the_nearest_names_or_all_of_them() -> None:
    with pytest.raises(UserError, match="dpo has no field 'betta': did you mean 'beta'") as refusal:
        resolve("dpo", DPO, "tiny", {"betta": "1"})
    assert "learning_rate" not in str(refusal.value)
    with pytest.raises(UserError, match="dpo has no field 'zzz': there are aspect_ratios, beta, .*learning_rate"):
        resolve("dpo", DPO, "tiny", {"zzz": "1"})


def test_a_field_of_another_algorithm_is_unknown() -> None:
    with pytest.raises(UserError, match="dpo has no field 'gamma'"):
        resolve("dpo", DPO, "tiny", {"gamma": "1"})


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("beta", "0", "greater than 0"),
        ("beta", "-5", "greater than 0"),
        ("beta", "much", "give a number$"),
        ("beta", "nan", "finite|greater than 0|number"),
        ("steps", "0", "greater than 0"),
        ("steps", "2.5", "give a whole number$"),
        ("caption_dropout", "1", "less than 1"),
        ("learning_rate", "inf", "finite"),
        ("trainable", "both", "'full' or 'lora'"),
        ("precision", "fp8", "'fp32' or 'bf16'"),
        ("micro_batch_size", "0", "greater than 0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_reason(field: str, value: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"dpo: {field}={value!r} is not allowed: .*({reason})"):
        resolve("dpo", DPO, "tiny", {field: value})


def test_a_choice_of_the_algorithm_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="smpo: inversion='sideways' is not allowed: .*'grid', 'exact' or 'official'"):
        resolve("smpo", SmPO, "tiny", {"inversion": "sideways"})


def test_a_configuration_is_named_after_what_was_changed() -> None:
    assert run_name({}, recipe_of(CPO, "sdxl")) == "untried"
    assert run_name({}, recipe_of(CPO, "nothing-like-it")) == "defaults"
    assert run_name({}, TRIED) == "recipe"
    assert run_name({"micro_batch_size": "1", "checkpoint_seconds": "600"}, TRIED) == "recipe"
    assert run_name({"beta": "1"}, TRIED) == run_name({"beta": "1", "compile": "true"}, TRIED)
    assert run_name({"beta": "1", "steps": "2"}, TRIED) == run_name({"steps": "2", "beta": "1"}, TRIED)
    assert (
        len(
            {
                run_name({}, TRIED),
                run_name({"beta": "1"}, TRIED),
                run_name({"beta": "2"}, TRIED),
                run_name({"steps": "1"}, TRIED),
            }
        )
        == 4
    )


def test_a_batch_larger_than_the_data_is_lowered_unless_it_was_typed() -> None:
    settings = TrainingSettings(global_batch_size=2048)
    assert fit_batch(DPO, {"beta": "1"}, settings, 36) == {"beta": "1", "global_batch_size": "36"}
    assert fit_batch(DPO, {"beta": "1"}, settings, 2048) == {"beta": "1"}
    assert fit_batch(DPO, {"global_batch_size": "2048"}, settings, 36) == {"global_batch_size": "2048"}
    assert fit_batch(DPO, {"batch": "2048"}, settings, 36) == {"batch": "2048"}  # the name of version 0.1


def own_folder() -> FoundModel:
    """A StableDiffusionPipeline of one's own."""
    return FoundModel("mine-0123", MODELS.get("sd15"), "sd15", borrowed=True)


def test_a_folder_of_ones_own_says_whose_recipe_it_gets() -> None:
    method = make_method("dpo", own_folder(), {}, 5000)
    assert (method.settings.global_batch_size, method.label, method.changed) == (2048, "sd15-recipe", {})
    assert method.note == "settings are sd15's recipe for dpo"
    registered = make_method("dpo", FoundModel("sd15", MODELS.get("sd15"), "sd15"), {}, 5000)
    assert (registered.label, registered.note) == ("recipe", None)


def test_a_registered_model_says_whose_recipe_it_gets_if_its_card_names_another() -> None:
    method = make_method("dpo", find_model("tiny-flow"), {}, 5000)
    assert (method.label, method.note) == ("tiny-recipe", "settings are tiny's recipe for dpo")
    assert make_method("dpo", find_model("tiny"), {}, 5000).note is None


def test_a_recipe_whose_batch_was_lowered_is_not_called_by_its_name() -> None:
    for model in (own_folder(), FoundModel("sd15", MODELS.get("sd15"), "sd15")):
        method = make_method("dpo", model, {}, 36)
        assert method.settings.global_batch_size == 36
        assert method.changed == {"global_batch_size": "36"}
        assert method.label == run_name({"global_batch_size": "36"}, TRIED)
        said = "settings are sd15's recipe for dpo, global_batch_size lowered from 2048 to 36: there are 36 pairs"
        assert method.note == said
    assert make_method("dpo", own_folder(), {}, 36, "mine").label == "mine"


def test_defaults_that_are_lowered_claim_no_recipe() -> None:
    nothing = FoundModel("new-0123", MODELS.get("sd15"), "nothing-like-it", borrowed=True)
    method = make_method("dpo", nothing, {}, 20)
    assert method.note == "settings are dpo's defaults, global_batch_size lowered from 32 to 20: there are 20 pairs"
    assert make_method("dpo", nothing, {}, 32).note is None


@pytest.mark.parametrize("name", ["ddpo", "flow-grpo", "nft", "dpok", "d3po", "draft", "tailorpo"])
def test_small_data_does_not_lower_a_batch_of_samples(name: str) -> None:
    method = make_method(name, FoundModel("tiny", MODELS.get("tiny"), "tiny"), {}, 5)
    assert method.settings.global_batch_size == ALGORITHMS.get(name).recipes["tiny"].training["global_batch_size"] > 5
    assert (method.changed, method.note) == ({}, None)


def test_a_dotted_name_reaches_a_field_of_a_field() -> None:
    npo, settings = resolve("npo", NPO, "sd15", {"objective_fields.beta": "700", **parse_budget("forwards=9000")})
    assert npo.inner == DPO(beta=700.0)
    assert settings.budget is not None
    assert (settings.budget.unit, settings.budget.amount) == ("forwards", 9000)


@pytest.mark.parametrize(
    ("wrapper", "model", "typed", "fields"),
    [
        ("sdpo", "sd15", {"objective": "dspo"}, {"variant": "sd15", "beta": 0.001}),  # as dspo's own recipe, and not dpo's beta
        ("sdpo", "sdxl", {"objective": "dmpo"}, {"beta": 6000.0}),
        ("npo", "sd15", {"objective": "ipo"}, {}),
        ("dro", "sd15", {"objective": "hinge", "objective_fields.beta": "70"}, {"beta": 70.0}),
        ("npo", "sdxl", {"objective": "dpo"}, {"beta": 2000.0}),  # the recipe's own objective
        ("npo", "no-such-model", {"objective": "hinge"}, {"beta": 2000.0}),
    ],
)  # fmt: skip
def test_another_objective_has_the_fields_of_its_own_recipe(
    wrapper: str, model: str, typed: dict[str, str], fields: dict[str, Any]
) -> None:
    algorithm, _ = resolve(wrapper, ALGORITHMS.get(wrapper), model, typed)
    assert isinstance(algorithm, Wrapper)
    assert algorithm.inner.info == ALGORITHMS.get(typed["objective"]).info
    assert fields.items() <= dict(algorithm.inner).items()


def test_a_field_of_what_has_no_fields_is_refused() -> None:
    with pytest.raises(UserError, match="beta="):
        resolve("dpo", DPO, "tiny", {"beta.gamma": "1"})


@pytest.mark.parametrize("typed", ["9000", "forwards", "forwards="])
def test_a_budget_of_another_form_is_refused(typed: str) -> None:
    with pytest.raises(UserError, match="is not of the form unit=amount, for example"):
        parse_budget(typed)


def test_a_budget_of_an_unknown_unit_is_refused_with_the_units() -> None:
    with pytest.raises(UserError, match="'pairs', 'forwards', 'seconds', 'samples' or 'rewards'"):
        resolve("dpo", DPO, "tiny", parse_budget("hours=3"))
