"""The small pack's way from samples to a pack keeps its numbers, and can be interrupted."""

from __future__ import annotations

import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hypnocast.core.pictures.recipe import Recipe, builtin
from hypnocast.core.pictures.render import draw_page
from hypnocast.core.types import Look, Picture, Role, Stage
from hypnocast.core.verdicts.calibration import Calibration
from hypnocast.core.verdicts.decider import Decider, NightState
from hypnocast.errors import RecipeError
from hypnocast.simulate.montages import CLINICAL
from hypnocast.simulate.night import SimulatedNight
from hypnocast.stagers.onnx.local import LocalStager
from hypnocast.stagers.packs.pack import load_pack, verify_pack
from support.needs import need_module

for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
    need_module(name)

import torch  # noqa: E402 - after what it needs was found

from hypnocast_models.data.pages import (  # noqa: E402
    ROWS,
    WHOLE,
    PageSet,
    by_lot,
    fill_cache,
    read_cache,
    strips,
)
from hypnocast_models.data.recordings import page_of  # noqa: E402
from hypnocast_models.data.simulated import ROLES as SIMULATED_ROLES  # noqa: E402
from hypnocast_models.small.assembly import PAGES_BEFORE, Size, build  # noqa: E402
from hypnocast_models.small.choose import Tried, choose, pick  # noqa: E402
from hypnocast_models.small.crossval import GAINS, evidence  # noqa: E402
from hypnocast_models.small.drawn_nights import DrawnNights, louder  # noqa: E402
from hypnocast_models.small.regimen import WAYS  # noqa: E402
from hypnocast_models.small.ship import Shipment, provenance, ship  # noqa: E402
from hypnocast_models.small.train import Diet, TrainPlan, judge, off_page, train  # noqa: E402
from support.made_up_nights import night  # noqa: E402

RECIPE = builtin("spectral-448")
SMALL = Size(width=32, trace_channels=8, spectrum_channels=16, latents=2, dropout=0.0)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> DrawnNights:
    folder = tmp_path_factory.mktemp("cache")
    fill_cache([night(20)], WHOLE, RECIPE, folder, seed=0)
    return DrawnNights("whole", read_cache(folder, WHOLE, RECIPE, 0), WHOLE.variants)


def pictures_of(pages: int, gain: float = 1.0, recipe: Recipe = RECIPE) -> list[Picture]:
    recording = night(20)
    return [
        draw_page(
            recording.page(row, recipe.context_s, recipe.tail_s, Role.C4, gain),
            recipe,
            50,
            {},
            {Role.C4: recording.channel},
        )
        for row in range(pages)
    ]


def test_strips_give_the_tower_the_same_numbers_as_the_whole_page() -> None:
    torch.manual_seed(0)
    tower = build(SMALL).eval().model.vision_tower
    page = pictures_of(3)[2].rgb
    ink, power = strips(page, RECIPE, (Role.C4,), 448)
    with torch.inference_mode():
        pixels = torch.from_numpy(page.transpose(2, 0, 1).copy())[None].float() / 255
        whole = tower(pixels).last_hidden_state
        bands = torch.tensor([[1]])
        cut = tower.read(
            off_page(torch.from_numpy(ink)[None].float() / 255, bands),
            torch.from_numpy(power)[None].float() / 255,
            bands,
        )
    torch.testing.assert_close(cut, whole, atol=2e-5, rtol=1e-4)


def test_a_cache_goes_on_where_it_stopped_and_refuses_other_seeds(tmp_path: Path) -> None:
    nights = [night(4, seconds=5.0), night(4, seed=1, seconds=5.0, subject="subject01")]
    done: list[int] = []
    fill_cache(nights[:1], ROWS, RECIPE, tmp_path, seed=0)
    first = next(tmp_path.glob("*.npz"))
    written = first.stat().st_mtime_ns
    fill_cache(nights, ROWS, RECIPE, tmp_path, seed=0, advance=done.append)
    assert first.stat().st_mtime_ns == written
    assert sum(done) == 2 * 4 * ROWS.variants
    pages = read_cache(tmp_path, ROWS, RECIPE, 0)
    assert pages.subjects == ("made-up/subject00", "made-up/subject01")
    # Five seconds of thirty: nothing is inked behind them.
    assert pages.power[..., :18].any()
    assert not pages.power[..., 20:].any()
    with pytest.raises(RecipeError, match="its seed is 0, not 7"):
        read_cache(tmp_path, ROWS, RECIPE, 7)


@pytest.mark.parametrize("gain", [0.4, 0.8, 1.7, 2.8])
def test_training_sees_a_gain_as_the_daemon_draws_it(material: DrawnNights, gain: float) -> None:
    drawn = pictures_of(12, gain)
    wanted = [strips(picture.rgb, RECIPE, (Role.C4,), 448) for picture in drawn]
    ink, power = material.features(material.places(0)[:12], np.full(1, gain))
    shown = np.stack([strip for strip, _ in wanted]) / 255
    # The trace is that of the nearest gain drawn: never half as tall nor twice as tall.
    tall = [(trace > 0.3).any(axis=3).sum() for trace in (ink.numpy(), shown)]
    assert 0.75 < tall[0] / tall[1] < 1.33
    grey = np.stack([strip for _, strip in wanted]) / 255
    assert np.abs(power.numpy() - grey).mean() < 0.01


def test_a_louder_spectrogram_is_the_one_drawn_at_that_gain() -> None:
    quiet, loud = pictures_of(1)[0], pictures_of(1, gain=2.0)[0]
    _, power = strips(quiet.rgb, RECIPE, (Role.C4,), 448)
    _, wanted = strips(loud.rgb, RECIPE, (Role.C4,), 448)
    moved = louder(torch.from_numpy(power)[None].float() / 255, torch.tensor([np.log(2.0)]))
    bright = power > 60
    error = np.abs(moved[0].numpy() * 255 - wanted)[bright]
    assert error.max() <= 2.5


def test_training_that_was_interrupted_ends_where_it_would_have(
    material: DrawnNights, tmp_path: Path
) -> None:
    diets = [Diet(material, np.array([0]), batch=1, share=1.0)]
    weights = torch.ones(5)

    def run(folder: Path, plan: TrainPlan, stop: int | None = None) -> Any:
        def advance(step: int, _: float) -> None:
            if step == stop:
                raise KeyboardInterrupt

        return train(plan, diets, weights, folder, advance)

    plan = TrainPlan(seed=3, steps=4, size=SMALL, checkpoint_every=2)
    straight = run(tmp_path / "straight", plan).state_dict()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", plan, stop=3)
    resumed = run(tmp_path / "broken", plan).state_dict()
    for key, value in straight.items():
        torch.testing.assert_close(resumed[key], value, msg=key)


def test_the_daemon_gives_a_page_the_probabilities_of_training(
    material: DrawnNights, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = build(SMALL).eval()
    shipment = Shipment("0.0.1", Calibration(prior=(0.2,) * 5), provenance((), "0" * 40, "pytest"))
    (tmp_path / "CARD.md").write_text("# Made up\n", encoding="utf-8")
    pack, parity = ship(model, shipment, tmp_path)
    assert parity.largest < 1e-4
    assert verify_pack(tmp_path) == ()
    wanted = judge(model, material, 0, 1.0)[:12]

    recent: deque[Picture | None] = deque([None] * (PAGES_BEFORE + 1), maxlen=PAGES_BEFORE + 1)
    looks = []
    for picture in pictures_of(12, recipe=pack.recipe):
        recent.append(picture)
        looks.append(Look(tuple(recent), center=PAGES_BEFORE))
    stager = LocalStager(pack, "cpu", threads=1)
    probabilities = np.stack([opinion.log_probabilities for opinion in stager.judge(looks)])
    stager.close()
    np.testing.assert_allclose(probabilities, wanted, atol=1e-4)


def test_a_model_is_never_calibrated_on_what_it_was_trained_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not on fold 2"):
        evidence(tmp_path, (0, 1), 2, material=None)  # type: ignore[arg-type]  # refused before it is looked at


def test_a_fold_chooses_by_nothing_that_its_own_subjects_had_a_part_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pages = 60
    stage = rng.integers(0, 5, (4, pages)).astype(np.uint8)
    material = DrawnNights("rows", _four_subjects(stage), 1)
    # What is known lies where the first fold may look, and nowhere else: a choice that wanted
    # more, a model's word on a pair without the fold or on the fold itself, would find no model.
    for way in WAYS:
        for judged in (1, 2, 3):
            folder = tmp_path / way.name / f"pair0{judged}"
            folder.mkdir(parents=True)
            clear = 2.0 if way.name == "trusting" else 0.5
            fields = {f"{gain:g} {judged}": _opinions(stage[judged], clear, rng) for gain in GAINS}
            np.savez(folder / f"said-of-rows-{judged}.npz", **fields)  # type: ignore[arg-type]  # numpy's stub takes every keyword for its own
    choice = choose(tmp_path, 0, material)
    assert choice.way == "trusting"
    assert len(choice.tried) == 9
    # The subjects of the fold itself could have had any stages.
    stage[0] = 0
    (tmp_path / "choices" / "fold0.json").unlink()
    assert choose(tmp_path, 0, DrawnNights("rows", _four_subjects(stage), 1)) == choice
    with pytest.raises(FileNotFoundError, match="pair01"):
        choose(tmp_path, 1, material)


def test_a_way_that_stands_no_wrong_gain_is_chosen_only_if_none_does() -> None:
    bright = Tried(way="trusting", weights="even", kappa=(0.60, 0.75, 0.74))
    steady = Tried(way="wary", weights="even", kappa=(0.69, 0.72, 0.71))
    dull = Tried(way="wary", weights="nominal alone", kappa=(0.70, 0.71, 0.71))
    assert pick([bright, steady, dull]) is steady
    assert pick([bright, Tried(way="wary", weights="even", kappa=(0.6, 0.7, 0.7))]).way == "wary"


def test_trusting_the_recorded_gain_leaves_half_of_the_stretches_anywhere() -> None:
    wary, trusting = (by_lot(np.random.default_rng(1), 20_000, share) for share in (0.0, 0.35))
    close = [np.mean(np.abs(np.log(gains)) < 0.1) for gains in (wary, trusting)]
    far = [np.mean(np.abs(np.log(gains)) > 0.6) for gains in (wary, trusting)]
    assert close[1] - close[0] == pytest.approx(0.35 * 0.8, abs=0.02)
    assert far[0] == far[1] > 0.2


def _four_subjects(stage: NDArray[np.uint8]) -> PageSet:
    subjects, pages = stage.shape
    blank = np.zeros((subjects * pages, 1, 1, 1), np.uint8)
    names = tuple(f"made-up/subject{number:02d}" for number in range(subjects))
    night = np.repeat(np.arange(subjects), pages)
    return PageSet(
        ink=blank,
        power=blank,
        stage=stage.ravel(),
        epoch=np.tile(np.arange(pages), subjects),
        gain=np.ones(subjects * pages),
        night=night,
        subject=night,
        nights=tuple(f"{name}-night1" for name in names),
        subjects=names,
    )


def _opinions(
    stage: NDArray[np.uint8], clear: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    scores = rng.normal(size=(len(stage), 5)) + clear * np.eye(5)[stage]
    found: NDArray[np.float64] = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("person", [2, 1009])
def test_n3_of_a_simulated_night_is_n3_to_the_pack_that_ships(person: int) -> None:
    """With all six channels at 256 Hz, as labs record: what the pack never saw is not drawn."""
    pack = load_pack(Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small")
    recipe = pack.recipe
    simulated, before = SimulatedNight(person, hours=8), pack.manifest.context.before
    first = simulated.stages.index(Stage.N3)
    recent: deque[Picture | None] = deque([None] * (before + 1), maxlen=before + 1)
    looks, deep = [], []
    for epoch in range(first - 6, first + 12):
        start = epoch * 30.0
        samples = simulated.samples(
            start - recipe.context_s, start + 30.0 + recipe.tail_s, leads=CLINICAL, rate=256
        )
        channels = {
            role: (samples[:, place].astype(np.float64), 256.0, role.value)
            for place, role in enumerate(SIMULATED_ROLES)
        }
        page = page_of(channels, epoch, recipe.context_s, recipe.tail_s)
        recent.append(draw_page(page, recipe, 50))
        looks.append(Look(tuple(recent), center=before))
        deep.append(simulated.stages[epoch] is Stage.N3)
    stager = LocalStager(pack, "cpu", threads=1)
    decider, state, staged_deep = Decider(pack.manifest.calibration), NightState(), []
    for opinion in stager.judge(looks):
        state, staged = decider.step(state, opinion)
        staged_deep.append(staged.stage is Stage.N3)
    stager.close()
    found = np.mean(np.asarray(staged_deep)[deep])
    assert found >= 0.7, f"{found:.0%} of {sum(deep)} pages"


def test_the_pack_that_ships_verifies_and_is_small() -> None:
    folder = Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small"
    assert verify_pack(folder) == ()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10_000_000


def test_one_changed_byte_of_the_pack_that_ships_is_named(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "models" / "packs" / "hypnocast-small"
    for name in sorted(path.name for path in folder.iterdir() if path.name != "pack.toml"):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        assert any(name in str(fault) for fault in verify_pack(copy)), name
