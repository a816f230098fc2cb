"""The networks that come with pfs: their published sizes, shapes, names and initial weights."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pfs_core.config.spec import ModelSpec
from pfs_core.errors import UserError
from pfs_core.models import MODELS, build_model, check_model_size
from pfs_core.structure import unexpanded_graph


@pytest.mark.parametrize(
    ("name", "kwargs", "params", "macs"),
    [
        ("resnet20", {}, 272_474, 40_813_184),
        ("resnet20", {"shortcut": "pad"}, 269_722, 40_551_040),
        ("resnet32", {"shortcut": "pad"}, 464_154, 68_862_592),
        ("resnet44", {"shortcut": "pad"}, 658_586, 97_174_144),
        ("resnet56", {}, 855_770, 125_747_840),
        ("resnet56", {"shortcut": "pad"}, 853_018, 125_485_696),
        ("resnet110", {"shortcut": "pad"}, 1_727_962, 252_887_680),
        ("vgg11", {}, 9_228_362, 152_769_536),
        ("vgg13", {}, 9_413_066, 228_267_008),
        ("vgg16", {}, 14_724_042, 313_201_664),
        ("vgg19", {}, 20_035_018, 398_136_320),
        ("mobilenet_v1", {}, 4_231_976, 568_740_352),
        ("mobilenet_v2", {}, 3_504_872, 300_774_272),
        ("resnet18", {}, 11_689_512, 1_814_073_344),
        ("resnet34", {}, 21_797_672, 3_663_761_408),
        ("resnet50", {}, 25_557_032, 4_089_184_256),
        ("resnet101", {}, 44_549_160, 7_801_405_440),
    ],
)
def test_sizes_are_the_published_ones(name, kwargs, params, macs):
    with torch.device("meta"):
        model = build_model(name, kwargs=kwargs)
    with FlopCounterMode(display=False) as flops:
        model.eval()(torch.empty(1, *MODELS[name].input_shape, device="meta"))
    assert sum(p.numel() for p in model.parameters()) == params
    assert flops.get_total_flops() == 2 * macs


@pytest.mark.parametrize("name", MODELS)
def test_any_images_and_classes(name):
    model = build_model(name, num_classes=7, input_shape=(1, 32, 40))
    assert model(torch.randn(2, 1, 32, 40)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "kwargs", "first", "last"),
    [
        ("resnet20", {"width": 5}, 5, 20),
        ("resnet20", {"width": 5, "shortcut": "pad"}, 5, 20),
        ("resnet110", {"width": 3}, 3, 12),
        ("vgg11", {"width": 5}, 5, 40),
        ("vgg19", {"width": 3}, 3, 24),
        ("mobilenet_v1", {"width_mult": 0.3}, 9, 307),
        ("mobilenet_v1", {"width_mult": 2}, 64, 2048),
        ("mobilenet_v2", {"width_mult": 0.3}, 16, 1280),
        ("mobilenet_v2", {"width_mult": 2}, 64, 2560),
        ("resnet18", {"width": 5}, 5, 40),
        ("resnet50", {"width": 5}, 5, 160),
    ],
)
def test_any_width(name, kwargs, first, last):
    model = build_model(name, kwargs=kwargs, input_shape=(2, 33, 32))
    assert next(m for m in model.modules() if isinstance(m, nn.Conv2d)).out_channels == first
    assert [m for m in model.modules() if isinstance(m, nn.Linear)][-1].in_features == last
    assert model(torch.randn(2, 2, 33, 32)).shape == (2, MODELS[name].num_classes)


@pytest.mark.parametrize("name", MODELS)
def test_a_factory_says_what_it_builds(name):
    assert MODELS[name].load().__doc__


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"])
def test_checkpoints_and_module_order_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = build_model(name), build_model(f"torchvision:{name}")
    shapes = [[(key, value.shape) for key, value in model.state_dict().items()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    kinds = [[(path, type(m)) for path, m in model.named_modules() if path] for model in (ours, theirs)]
    assert kinds[0] == kinds[1]


def test_a_checkpoint_of_torchvision_computes_the_same():
    ours, theirs = build_model("resnet50").eval(), build_model("torchvision:resnet50").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50"])
def test_initialisation_is_the_released_codes(name):
    torch.manual_seed(0)
    model = build_model(name)
    as_built = [module.weight.std().item() for _, module in layers(model)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.init_weights()
    for (path, module), before in zip(layers(model), as_built, strict=True):
        expected = pytest.approx(expected_std(module, name), rel=0.1)
        assert (before, module.weight.std().item()) == (expected, expected), path
    scale = 0.5 if name == "vgg16" else 1.0
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == scale).all()
            assert (module.bias == 0).all()
    if "mobilenet" in name or "vgg" in name:
        assert not list(model.parameters())[-1].any()


def layers(model):
    """Layers with weights enough to estimate a standard deviation from."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 2000:
            yield path, module


def expected_std(module, name):
    """sqrt(2 / (k*k*C_out)) for convolutions, depthwise ones too; 0.01 or PyTorch's own for a classifier."""
    if isinstance(module, nn.Conv2d):
        return (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
    return (1 / (3 * module.in_features)) ** 0.5 if "resnet" in name else 0.01


def test_same_seed_same_network():
    def weights(seed):
        torch.manual_seed(seed)
        return build_model("resnet20").state_dict()

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_option_a_keeps_every_second_pixel_between_channels_of_zeros():
    shortcut = build_model("resnet20", kwargs={"width": 3, "shortcut": "pad"}).layer2[0].shortcut
    x = torch.randn(2, 3, 5, 4)
    out = shortcut(x)
    assert out.shape == (2, 6, 3, 2)
    assert torch.equal(out[:, 1:4], x[:, :, ::2, ::2])
    assert not out[:, 0].any()
    assert not out[:, 4:].any()


def test_stream_layers_are_the_last_convolutions_of_blocks():
    def named(name):
        with torch.device("meta"):
            model = build_model(name)
        convolutions = {path for path, m in model.named_modules() if isinstance(m, nn.Conv2d)}
        return {p for p in convolutions if any(re.fullmatch(pattern, p) for pattern in model.stream_layers)}

    assert named("mobilenet_v2") == {"features.1.conv.1", *(f"features.{i}.conv.2" for i in range(2, 18))}
    assert named("resnet50") == {"conv1"}


def test_only_cifar_resnets_widen_their_stream():
    with torch.device("meta"):
        wide = {name for name in MODELS if getattr(build_model(name), "widen_stream", False)}
    assert wide == {"resnet20", "resnet32", "resnet44", "resnet56", "resnet110"}


def test_torchvision_is_imported_only_for_its_networks():
    check = (
        "import sys; from pfs_core.models import build_model; build_model('resnet20'); build_model('mobilenet_v1')\n"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_keyword_arguments_reach_the_network():
    assert build_model(ModelSpec(name="resnet20", kwargs={"width": 4})).conv1.out_channels == 4


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError) as error:
        build_model("resnet21")
    assert str(error.value).startswith("unknown model 'resnet21' (did you mean resnet20?); known: resnet20, ")
    assert str(error.value).endswith(", torchvision:NAME, timm:NAME, package.module:factory")


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet20", {"depth": 20}),
        ("resnet20", {"width": "wide"}),
        ("resnet20", {"width": 0}),
        ("resnet20", {"width": -4}),
        ("resnet20", {"width": 2.5}),
        ("vgg11", {"width": True}),
        ("resnet18", {"width": 0}),
        ("resnet20", {"shortcut": "zero"}),
        ("mobilenet_v1", {"width_mult": 0}),
        ("mobilenet_v1", {"width_mult": float("inf")}),
        ("mobilenet_v2", {"width_mult": "half"}),
    ],
    ids=str,
)
def test_wrong_keyword_arguments_are_refused(name, kwargs):
    with pytest.raises(UserError, match=f"{next(iter(kwargs))}.* (must be|known: )") as error:
        build_model(ModelSpec(name=name, kwargs=kwargs))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (
            100_000,
            r"its 10,[\d,]+ weights take 3[\d,.]+ GiB of memory, and there are .*make it smaller \(model.width\)",
        ),
        (10**8, r"weights take 3[\d,.]+ GiB of memory"),
        (10**12, "model resnet20: RuntimeError"),
    ],
)
def test_weights_that_do_not_fit_in_memory_are_counted_and_not_made(width, message):
    with pytest.raises(UserError, match=message) as error:
        check_model_size(ModelSpec(name="resnet20", kwargs={"width": width}))
    assert "\n" not in str(error.value)


def test_the_cost_of_a_network_takes_no_memory():
    assert unexpanded_graph(ModelSpec(name="resnet20", kwargs={"width": 10**5})).cost().params > 10**13
