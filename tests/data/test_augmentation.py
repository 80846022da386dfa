import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from mnist_lightning.data.augmentation import Augmentation, augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blob(count: int = 1) -> Tensor:
    """Images (count, 1, 28, 28) of one soft spot away from the middle, on a background of 0."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    spot = torch.exp(-((rows - 8) ** 2 / 8 + (columns - 17) ** 2 / 18))
    return (255 * spot * (spot > 0.01)).expand(count, 1, 28, 28).contiguous()


def centre(images: Tensor) -> Tensor:
    """Centres of mass (count, 2) as (row, column), in pixels from the middle of the image."""
    places = torch.arange(28.0) - 13.5
    mass = images.sum(dim=(1, 2, 3))
    return torch.stack(
        [(images.sum(dim=(1, 3)) * places).sum(dim=1) / mass, (images.sum(dim=(1, 2)) * places).sum(dim=1) / mass], 1
    )


def test_zero_amounts_leave_images_unchanged() -> None:
    torch.testing.assert_close(augment(blob(3), Augmentation(), generator()), blob(3), rtol=0, atol=1e-3)


def test_equal_generators_give_equal_images_and_others_do_not() -> None:
    amounts = Augmentation(rotation=15, scale=0.1, shear=10, shift=2, elastic=1)
    first, again, other = (augment(blob(4), amounts, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1]), "each image has draws of its own"


def test_shifts_stay_within_their_bound_and_reach_towards_it() -> None:
    moved = centre(augment(blob(500), Augmentation(shift=2), generator())) - centre(blob(500))
    assert float(moved.abs().max()) <= 2.01
    assert float(moved.amax()) > 1.9
    assert float(moved.amin()) < -1.9
    # 500 draws from [-2, 2] have a standard error of 0.052.
    assert float(moved.mean(dim=0).abs().max()) < 0.25


def test_rotations_turn_about_the_middle_and_keep_the_distance() -> None:
    turned = centre(augment(blob(300), Augmentation(rotation=20), generator()))
    row, column = centre(blob())[0]
    # Interpolation and the cut of the spot's foot move the centre of mass by hundredths of a pixel.
    torch.testing.assert_close(turned.norm(dim=1), torch.hypot(row, column).expand(300), rtol=0, atol=0.05)
    angles = torch.rad2deg(torch.atan2(turned[:, 0], turned[:, 1]) - torch.atan2(row, column))
    assert 19 < float(angles.abs().max()) < 20.5
    assert float(angles.min()) < -15


@pytest.mark.parametrize(
    ("amounts", "options"),
    [
        (Augmentation(rotation=30), {"angle": 30}),
        (Augmentation(shear=20), {"shear": [20.0, 0.0]}),
        (Augmentation(shift=3), {"translate": [3, 3]}),
    ],
)
def test_the_extreme_draws_are_torchvisions_affine_map(
    monkeypatch: pytest.MonkeyPatch, amounts: Augmentation, options: dict[str, object]
) -> None:
    fixed: dict[str, object] = {"angle": 0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    expected = []
    for sign in (1, -1):
        signed = {
            name: [sign * item for item in value] if isinstance(value, list) else sign * value  # type: ignore[operator]
            for name, value in options.items()
        }
        expected.append(
            transforms.affine(
                blob(),
                **fixed | signed,
                interpolation=transforms.InterpolationMode.BILINEAR,
            )
        )
    for draw in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand", lambda *size, draw=draw, **_: torch.full(size, draw))
        ours = augment(blob(), amounts, generator())
        assert min(float((ours - theirs).abs().max()) for theirs in expected) < 0.5, "of 255"


def test_scaling_changes_the_area_as_its_draws_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size))
    smaller = augment(blob(), Augmentation(scale=0.25), generator())
    # A map from the result to the original that steps 1.25 pixels for one shrinks both sides by 1.25.
    assert float(smaller.sum() / blob().sum()) == pytest.approx(1 / 1.25**2, rel=0.01)


def test_flipping_mirrors_its_fraction_of_the_images_and_leaves_the_others() -> None:
    images = blob(1000)
    mirrored = augment(images, Augmentation(flip=0.25), generator())
    turned = torch.tensor([bool((image - images[0].flip(-1)).abs().max() < 0.1) for image in mirrored])
    left = torch.tensor([bool((image - images[0]).abs().max() < 0.1) for image in mirrored])
    assert torch.equal(turned, ~left)
    assert 200 < int(turned.sum()) < 300  # 250 ± 14 are expected


def test_elastic_bending_moves_by_about_its_deviation() -> None:
    ramp = torch.arange(28.0).expand(2000, 1, 28, 28).contiguous()
    bent = augment(ramp, Augmentation(elastic=1.0), generator())
    moved = (bent - ramp)[:, 0, 10:18, 10:18]  # away from the edges, where the background comes in
    # Between the points of the grid a cubic interpolation keeps between 0.6 and 1 of their deviation.
    assert 0.5 < float(moved.std()) < 1.05
    assert abs(float(moved.mean())) < 0.05


def test_the_background_stays_background() -> None:
    white = torch.full((20, 1, 28, 28), 255.0)
    moved = augment(white, Augmentation(shift=5), generator())
    assert float(moved.min()) == 0, "what comes in from beyond the edge is 0"
    assert float(moved.max()) <= 255.01


@pytest.mark.parametrize(
    ("name", "amount"), [("rotation", -1), ("rotation", 180), ("scale", 1), ("shear", 90), ("shift", math.nan)]
)
def test_an_amount_out_of_range_is_rejected(name: str, amount: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be in"):
        Augmentation(**{name: amount})
