"""Published configurations: every key has a fate, the axes are turned, the numbers arrive."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from veloxseg.datasets.description import DatasetDescription
from veloxseg.errors import PlanError
from veloxseg.network import DistillationModel, VeloxSeg
from veloxseg.network.published import load_published, published_config
from veloxseg.planning.given import require_fit
from veloxseg.planning.presets import preset_plan
from veloxseg.planning.published import published_plan, read_published_training
from veloxseg.planning.published.files import MODEL_KEYS
from veloxseg.training.schedule import WarmupCosine

PATCHES = {"AutoPET-II": [96, 96, 96], "Hecktor2022": [128, 128, 64]}
SPACINGS = {"AutoPET-II": [2.0364, 2.0364, 3.0], "Hecktor2022": [1, 1, 1]}
TRAINING = {
    "patch_size": PATCHES,
    "spacing": SPACINGS,
    "batch_size": 2,
    "deep_Loss_weight": [1, 0.5, 0.25, 0.125],
    "RC_Loss_weight": 0.5,
    "Feature_Loss_weight": 2.0,
    "train_rate": 0.6,
    "val_rate": 0.2,
    "epochs": 300,
    "optimizer": {"name": "AdamW", "lr": 2.5e-4, "weight_decay": 0.01},
    "warmup_scheduler": {"name": "LinearLR", "start_factor": 0.001, "total_iters": 10},
    "train_scheduler": {"name": "CosineAnnealingLR", "T_max": 290, "eta_min": 6e-6},
}
MODEL = {
    "in_ch": [1, 1],
    "n_classes": 2,
    "input_size": [128, 128, 64],
    "patch_size": 4,
    "depths": [1, 1, 1, 1],
    "min_big_window_sizes": [[4, 4, 2], [8, 8, 4], [4, 4, 2], [4, 4, 2]],
    "conv_drop": 0.1,
}
PETCT = DatasetDescription(
    channel_names={"0": "CT", "1": "PET"},
    labels={"background": 0, "tumour": 1},
    numTraining=10,
    file_ending=".nii.gz",
)


@pytest.fixture
def plan(tmp_path):
    def make(model=MODEL, training=TRAINING, dataset="Hecktor2022"):
        return published_plan(*write(tmp_path, model, training), dataset=dataset)

    return make


def write(folder, model, training):
    paths = folder / "model.json", folder / "train.json"
    for path, content in zip(paths, (model, training), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def changed(content, **values):
    return copy.deepcopy(content) | values


def without(content, key):
    return {k: v for k, v in content.items() if k != key}


def keys_of(content, place):
    """Places of all values; tables by dataset and lists are one value."""
    for key, value in content.items():
        if isinstance(value, dict) and key not in ("patch_size", "spacing"):
            yield from keys_of(value, f"{place}.{key}")
        else:
            yield f"{place}.{key}"


def test_the_published_files_are_honoured_to_the_last_key(plan):
    published = plan()
    assert published.not_honoured == []
    assert published.equivalent == [
        "training.warmup_scheduler.start_factor: the warm-up starts at a thousandth of the peak"
    ]
    keys = [*keys_of(MODEL, "model"), *keys_of(TRAINING, "training")]
    assert sorted(fate.key for fate in published.fates) == sorted(keys)


def test_the_published_files_give_the_numbers_of_the_preset_in_published_axes(plan):
    given, preset = plan().plan, preset_plan("hecktor2022", PETCT)
    assert given.transpose_forward == (2, 1, 0)
    assert given.network.patch_size == (128, 128, 64)
    turned = tuple(given.network.patch_size[axis] for axis in given.transpose_forward)
    assert turned == preset.network.patch_size
    assert [w[::-1] for w in given.network.big_windows] == list(preset.network.big_windows)
    assert (given.batch_size, given.overlap) == (preset.batch_size, preset.overlap)
    ours = given.recipe.model_dump()
    assert ours.pop("head_weights") == (1, 0.5, 0.25, 0.125)
    theirs = without(preset.recipe.model_dump(), "head_weights")
    assert ours == pytest.approx(theirs)
    assert given.split.ratios == pytest.approx((0.6, 0.2, 0.2))
    require_fit(given, PETCT)


def test_two_cases_of_two_crops_are_four_patches_of_which_two_see_foreground(plan):
    given = plan().plan
    assert given.batch_size == 4
    assert given.batch_size * given.recipe.foreground_share == 2


def test_the_schedule_is_the_published_one_epoch_by_epoch(plan):
    """Against PyTorch's own schedulers, which step once an epoch."""
    recipe = plan().plan.recipe
    ours = WarmupCosine(
        optimizer=None,
        peak=recipe.learning_rate,
        warmup=recipe.warmup,
        final_ratio=recipe.final_ratio,
    )
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=2.5e-4)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=10)
    for epoch in range(11):
        assert ours.rate(epoch / 300) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-2)
        optimizer.step()
        warmup.step()
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=2.5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=290, eta_min=6e-6)
    for epoch in range(10, 301):
        assert ours.rate(epoch / 300) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        cosine.step()


def test_spacing_is_turned_with_the_axes(plan):
    model = changed(without(MODEL, "min_big_window_sizes"), input_size=96)
    given = plan(model, dataset="AutoPET-II").plan
    assert given.spacing == (2.0364, 2.0364, 3.0)
    assert given.spacing_zyx == (3.0, 2.0364, 2.0364)
    assert given.transpose_forward.index(0) == 2  # Z is the last axis
    assert (
        given.spacing_zyx
        == preset_plan(
            "autopet2",
            PETCT,
        ).spacing_zyx
    )


@pytest.mark.parametrize("name", ["mixed_32x48x64", "mri4_64x64x32", "petct_64"])
def test_published_weights_load_as_they_are_and_read_our_arrays_turned(shared, tmp_path, name):
    content = json.loads((shared / "golden" / f"{name}.json").read_text())
    tensors = load_file(shared / "golden" / f"{name}.safetensors")
    training = changed(TRAINING, patch_size=content["input_size"], spacing=1.0)
    given = published_plan(*write(tmp_path, {"VeloxSeg": content}, training)).plan
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if "weights." in k}
    model = DistillationModel(VeloxSeg(given.network)).eval()
    model.load_state_dict(load_published(content, weights).state_dict())
    image_zyx = tensors["input"].permute(0, 1, 4, 3, 2)  # as our readers give it
    turned = image_zyx.permute(0, 1, *(axis + 2 for axis in given.transpose_forward))
    with torch.no_grad():
        logits = model.network(turned)
    torch.testing.assert_close(logits, tensors["eval.logits"], rtol=1e-4, atol=1e-4)
    assert logits.std() > 1e-2
    assert turned.shape[2:] == given.network.patch_size


OPTIMIZERS = [
    {"name": "AdamW", "lr": 1e-3, "weight_decay": 0.05},
    {"type": "torch.optim.AdamW", "args": {"lr": 1e-3, "weight_decay": 0.05}},
    {"class": "adamw", "params": {"learning_rate": 1e-3, "wd": 0.05}},
    {"name": "AdamW", "kwargs": {"lr": 1e-3}, "weight_decay": 0.05},
    {"AdamW": {"lr": 1e-3, "weight_decay": 0.05}},
    ["AdamW", {"lr": 1e-3, "weight_decay": 0.05}],
    {"lr": 1e-3, "weight_decay": 0.05},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=json.dumps)
def test_an_optimizer_may_be_written_in_several_forms(plan, optimizer):
    published = plan(training=changed(TRAINING, optimizer=optimizer, train_scheduler=None))
    recipe = published.plan.recipe
    assert (recipe.learning_rate, recipe.weight_decay) == (1e-3, 0.05)
    assert published.not_honoured == []


def test_a_missing_schedule_is_a_constant_rate_without_warm_up(plan):
    training = changed(TRAINING, warmup_scheduler=None, train_scheduler=None)
    recipe = plan(training=training).plan.recipe
    assert (recipe.warmup, recipe.final_ratio) == (0, 1)


REFUSED = [
    ({"seed": 3}, "training.seed: set when training: veloxseg train --seed"),
    ({"amp": True}, "training.amp: a plan has no such setting"),
    (
        {"optimizer": {"name": "SGD", "lr": 1e-2, "momentum": 0.9}},
        "optimizer.name: SGD: AdamW is taken, as published",
    ),
    ({"optimizer": {"name": "SGD", "lr": 1e-2, "momentum": 0.9}}, "optimizer.momentum: 0.9"),
    ({"optimizer": {"lr": 1e-2, "betas": [0.9, 0.99]}}, "optimizer.betas: [0.9, 0.99]: "),
    ({"warmup_scheduler": {"total_iters": 2500}}, "warmup_scheduler.total_iters: 2500 is not"),
    ({"warmup_scheduler": {"type": "ConstantLR", "args": {"total_iters": 5}}}, "ler.type: Const"),
    ({"warmup_scheduler": {"total_iters": 5, "start_factor": 0.5}}, "start_factor: 0.5"),
    ({"warmup_scheduler": {"total_iters": 5, "by_epoch": False}}, "by_epoch: False"),
    ({"warmup_scheduler": {"name": "LinearLR"}}, "warmup_scheduler: no length"),
    ({"train_scheduler": {"name": "PolynomialLR", "power": 0.9}}, "train_scheduler.power: 0.9"),
    ({"train_scheduler": {"name": "CosineAnnealingWarmRestarts", "T_0": 9}}, "ler.name: Cosine"),
    (
        {"train_scheduler": {"name": "cosine", "T_max": 300, "eta_min": 0}},
        "ler.T_max: 300: the cosi",
    ),
    ({"deep_Loss_weight": [1, 0.5]}, "deep_Loss_weight: [1.0, 0.5] is not one weight for each"),
    ({"deep_Loss_weight": 0.4}, "deep_Loss_weight: 0.4 is not one weight for each of the 4 heads"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_key_that_cannot_be_honoured_is_named_with_the_reason(plan, change, words):
    training = changed(TRAINING, **change)
    published = plan(training=training)
    assert any(words in line for line in published.not_honoured), published.not_honoured
    named = {fate.key for fate in published.fates}
    assert set(keys_of(training, "training")) <= named


def test_an_unknown_key_of_the_model_and_what_stands_beside_it_are_named(plan):
    model = {"name": "VeloxSeg", "args": MODEL | {"norm": "instance"}}
    published = plan(model)
    assert published.not_honoured == [
        "model.args.norm: the network has no such setting",
        "model.name: beside the configuration, and not part of it",
    ]
    assert published.plan.network == published_config(MODEL)


def test_several_models_in_one_file_are_told_apart_by_the_dataset(plan):
    other = changed(without(MODEL, "min_big_window_sizes"), input_size=[96] * 3)
    both = {"autopet_ii": other, "hecktor2022": MODEL}
    assert plan(both).plan.network.patch_size == (128, 128, 64)
    assert plan(both, dataset="AutoPET-II").plan.network.patch_size == (96, 96, 96)


def test_a_model_file_without_input_size_takes_the_patch_of_the_training(plan):
    network = plan(without(MODEL, "input_size")).plan.network
    assert network.patch_size == (128, 128, 64)


def test_heads_that_the_model_lacks_have_no_weight(plan):
    published = plan(changed(MODEL, deep_supervision=False))
    assert published.plan.recipe.head_weights == (1, 0, 0, 0)
    assert "training.deep_Loss_weight: the model has deep_supervision false" in (
        published.not_honoured
    )


def test_a_deep_weight_of_zero_leaves_the_finest_head_and_null_the_published_weights(plan):
    recipe = plan(training=changed(TRAINING, deep_Loss_weight=0)).plan.recipe
    assert recipe.head_weights == (1, 0, 0, 0)
    recipe = plan(training=changed(TRAINING, deep_Loss_weight=None)).plan.recipe
    assert recipe.head_weights is None


@pytest.mark.parametrize(
    "key",
    [
        "RC_Loss_weight",
        "Feature_Loss_weight",
        "train_rate",
        "val_rate",
        "deep_Loss_weight",
        "warmup_scheduler",
        "train_scheduler",
    ],
)
def test_what_is_assumed_for_an_absent_key_is_said(plan, key):
    published = plan(training=without(TRAINING, key)).plan
    assert any(note.startswith(f"No {key}: ") for note in published.notes)
    recipe = published.recipe.model_dump()
    expected = plan().plan.recipe.model_dump()
    del recipe["head_weights"], expected["head_weights"]
    assert recipe == pytest.approx(expected)


@pytest.mark.parametrize("key", ["patch_size", "spacing", "batch_size", "epochs", "optimizer"])
def test_a_missing_key_is_named_with_the_file(plan, key):
    with pytest.raises(PlanError, match=rf"train\.json: .*{key} missing"):
        plan(training=without(TRAINING, key))


@pytest.mark.parametrize("key", ["in_ch", "n_classes"])
def test_a_missing_key_of_the_model_is_named_with_the_file(plan, key):
    with pytest.raises(PlanError, match=rf"model\.json: .*missing \['{key}'\]"):
        plan(without(MODEL, key))


BAD = [
    ({"batch_size": "2"}, r"batch_size is \"2\""),
    ({"batch_size": True}, "batch_size is true"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"epochs": 3.5}, "epochs is 3.5"),
    ({"patch_size": {"Hecktor2022": [128, 128]}}, "patch_size.Hecktor2022"),
    ({"patch_size": {"Hecktor2022": [128, 128, 6.4]}}, "patch_size.Hecktor2022.2 is 6.4"),
    ({"patch_size": "96"}, "patch_size"),
    ({"patch_size": {}}, "patch_size"),
    ({"spacing": {"Hecktor2022": [1, 1, 0]}}, "spacing.Hecktor2022.2 is 0"),
    ({"spacing": {"AutoPET-II": [1, 1, 1]}}, "spacing has nothing for 'Hecktor2022'"),
    ({"RC_Loss_weight": -1}, "RC_Loss_weight is -1"),
    ({"RC_Loss_weight": "half"}, "RC_Loss_weight"),
    ({"train_rate": 0.9}, "more than 1"),
    ({"train_rate": 6, "val_rate": 2}, "train_rate is 6"),
    ({"optimizer": 3}, "training.optimizer is 3"),
    ({"optimizer": None}, "training.optimizer is None"),
    ({"optimizer": "AdamW"}, "no learning rate"),
    ({"optimizer": {"name": "AdamW", "lr": "1e-3"}}, "training.optimizer.lr is '1e-3'"),
    ({"optimizer": {"name": "AdamW", "lr": 0}}, "training.optimizer.lr is 0"),
    ({"optimizer": {"lr": 1e-3, "weight_decay": -1}}, "weight_decay would be -1"),
    ({"optimizer": {"lr": float("nan")}}, "training.optimizer.lr is nan"),
    ({"warmup_scheduler": 10}, "training.warmup_scheduler is 10"),
    ({"train_scheduler": {"eta_min": 1}}, "training.train_scheduler.eta_min is 1"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_value_is_named(plan, change, words):
    with pytest.raises(PlanError, match=words):
        plan(training=changed(TRAINING, **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_heads": "two"}, "num_heads"),
        ({"in_ch": 2}, "wrong type"),
        ({"input_size": [96, 96, 96]}, r"input_size is \[96, 96, 96\], but patch_size in .*64\]"),
        ({"input_size": [64, 128, 128]}, "input_size"),
        ({"scale_factors": [[3, 3, 3]] * 3}, "always 2"),
        ({"min_big_window_sizes": [[3, 3, 3]] * 4}, "does not divide"),
        ({"deep_supervision": "yes"}, "true or false"),
    ],
)
def test_a_wrong_value_of_the_model_is_named(plan, change, words):
    with pytest.raises(PlanError, match=words):
        plan(changed(MODEL, **change))


def test_an_unknown_dataset_and_none_of_several_list_what_there_is(plan):
    with pytest.raises(PlanError, match=r"nothing for 'Liver'.*AutoPET-II, Hecktor2022"):
        plan(dataset="Liver")
    with pytest.raises(PlanError, match=r"several datasets.*AutoPET-II, Hecktor2022"):
        plan(dataset=None)
    assert plan(dataset="HECKTOR 2022").plan.network.patch_size == (128, 128, 64)


def test_patch_and_spacing_are_of_one_dataset(plan):
    spacing = TRAINING["spacing"]
    one = changed(TRAINING, patch_size={"HECKTOR 2022": [128, 128, 64]}, spacing=spacing)
    assert plan(training=one, dataset=None).plan.spacing == tuple(spacing["Hecktor2022"])
    other = changed(one, spacing={"AutoPET-II": [2.0, 2.0, 3.0]})
    with pytest.raises(PlanError, match="spacing has nothing for 'HECKTOR 2022'"):
        plan(training=other, dataset=None)


def test_files_that_are_none_are_refused(plan, tmp_path):
    for text in ("{", "[]", "3", "{}", '{"name": {"a": 1}}'):
        with pytest.raises(PlanError, match=r"model\.json"):
            plan(text)
        with pytest.raises(PlanError, match=r"train\.json"):
            plan(training=text)
    with pytest.raises(PlanError, match="no such file"):
        read_published_training(tmp_path / "absent.json")
    with pytest.raises(PlanError, match="not the JSON"):
        read_published_training(tmp_path)


def test_files_given_in_the_wrong_order_are_refused(tmp_path):
    model, training = write(tmp_path, MODEL, TRAINING)
    with pytest.raises(PlanError, match="Give the model's file first"):
        published_plan(training, model, dataset="Hecktor2022")


def test_a_dataset_with_other_channels_or_labels_does_not_fit(plan):
    given = plan(changed(MODEL, n_classes=3)).plan
    with pytest.raises(PlanError, match=r"3 outputs, the dataset 2 labels, background included"):
        require_fit(given, PETCT)
    given = plan(changed(MODEL, in_ch=[1, 1, 1])).plan
    with pytest.raises(PlanError, match=r"reads 3 channels .*has 2 \(CT, PET\)"):
        require_fit(given, PETCT)


def test_the_training_is_read_alone_and_keeps_unknown_keys(tmp_path):
    _, path = write(tmp_path, MODEL, {"train": TRAINING | {"amp": True}})
    training = read_published_training(path)
    assert training.patch_size["Hecktor2022"] == (128, 128, 64)
    assert training.spacing["AutoPET-II"] == (2.0364, 2.0364, 3.0)
    assert (training.reconstruction_weight, training.feature_weight) == (0.5, 2.0)
    assert training.model_extra == {"amp": True}


def test_the_table_of_model_keys_is_what_the_network_reads():
    defaults = dict.fromkeys(MODEL_KEYS)
    with pytest.raises(PlanError) as caught:
        published_config({"no_such_key": 1})
    assert all(key in str(caught.value) for key in defaults)
    with pytest.raises(PlanError, match="wrong type"):
        published_config(defaults | {"scale_factors": 2, "conv_depths": None})


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 400),
    st.floats(0, 1),
    st.floats(),
    st.sampled_from(["AdamW", "SGD", "LinearLR", "CosineAnnealingLR", "StepLR", ""]),
)
names = st.sampled_from(["name", "type", "lr", "weight_decay", "T_max", "eta_min", "total_iters"])
arguments = st.dictionaries(names, values, max_size=4)
forms = st.one_of(
    values,
    st.lists(values, max_size=5),
    arguments,
    st.builds(lambda inner, outer: outer | {"args": inner}, arguments, arguments),
    st.builds(lambda inner: {"AdamW": inner | {"lr": 1e-3}}, arguments),
    st.builds(lambda inner: ["AdamW", inner | {"lr": 1e-3}], arguments),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from([*without(TRAINING, "patch_size"), "amp", "scheduler"]), forms, max_size=2
    )
)
def test_whatever_a_file_holds_each_key_has_a_fate_or_a_plan_error_says_why(
    tmp_path_factory, change
):
    training = changed(TRAINING, **change)
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    try:
        published = published_plan(*write(folder, MODEL, training), dataset="Hecktor2022")
    except PlanError:
        return
    places = [fate.key for fate in published.fates]
    assert len(set(places)) == len(places)
    for key in keys_of(training, "training"):
        related = (place for place in places if f"{place}.".startswith(f"{key}."))
        covering = (place for place in places if f"{key}.".startswith(f"{place}."))
        assert any(related) or any(covering), key
