"""`awry study`: the three papers on your own model and data, each with its controls; a folder of results each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.app import app, say
from monitor.cli.study_inputs import (
    adapter_of,
    command_line,
    load,
    numbers_of,
    organisms_of,
    prompts_of,
    requests_of,
    rows_of_file,
    say_written,
    settings_of,
    slug,
    subject_of,
    texts_of,
)
from monitor.errors import SettingsError

if TYPE_CHECKING:
    from probes.capture.sites import Site
    from probes.studies.direction import Comparison

study = typer.Typer(help="Find out what a model's activations say and do, with controls.", no_args_is_help=True)
app.add_typer(study, name="study")

Flag = typer.Option
Model = Annotated[str | None, Flag(help="built-in name, folder or hub id")]
Scale = Annotated[float, Flag(help="strength of the adapters")]
State = Annotated[Path | None, Flag(help="models and the embedded database")]
Metric = Annotated[str | None, Flag(help="what counts as the behaviour: code, reckless, refusal, or your own command")]
Tokens = Annotated[int, Flag(help="tokens an answer")]
Seed = Annotated[int, Flag(help="seed of random controls and splits")]
Lines = Annotated[Path | None, Flag(help="JSON lines of messages")]


@study.command()
def direction(
    adapter: Annotated[str | None, Flag(help="the adapter under study; without any files: insecure_code")] = None,
    control_adapter: Annotated[str | None, Flag(help="same form, other content; shipped adapters know theirs")] = None,
    tuned: Annotated[str | None, Flag(help="a fine-tuned checkpoint instead of an adapter")] = None,
    control: Annotated[str | None, Flag(help="its control: another checkpoint")] = None,
    labelled: Annotated[Path | None, Flag(help="JSON lines with a label each, instead of two models")] = None,
    control_labelled: Annotated[Path | None, Flag(help="the same form with labels of other content")] = None,
    fit_prompts: Lines = None,
    select_prompts: Lines = None,
    test_prompts: Lines = None,
    metric: Metric = None,
    sites: Annotated[str, Flag(help="sites to read: all, heads, or a list such as residual[20],head[3,1]")] = "all",
    steer: Annotated[str | None, Flag(help="sites to steer; default: five blocks")] = None,
    steered: Annotated[int | None, Flag(help="test messages that are steered; default 60")] = None,
    interval: Annotated[float, Flag(help="widest half width of a rate that you accept")] = 0.15,
    random_directions: Annotated[int, Flag(help="random directions as controls, at least 5")] = 5,
    permutations: Annotated[int, Flag(help="permuted labels as controls")] = 20,
    prediction_scale: Annotated[float | None, Flag(help="strength of the adapter for the prediction")] = None,
    max_new_tokens: Tokens = 40,
    model: Model = None,
    scale: Scale = 1.0,
    seed: Seed = 0,
    name: Annotated[str | None, Flag(help="name of the study and its probe")] = None,
    out: Annotated[Path | None, Flag(help="folder to write to; default studies/NAME")] = None,
    state_dir: State = None,
) -> None:
    """Is there a direction of misalignment, does it control the behaviour, and is it specific? (arXiv 2606.20225)"""
    from probes.capture.sites import parse_sites
    from probes.model.adapters import adapter_spec
    from probes.model.load import add_adapter
    from probes.organisms.judges import JUDGES
    from probes.studies import direction as studies
    from probes.studies.metric import parse_metric
    from probes.studies.presets import direction_preset

    lists = [fit_prompts, select_prompts, test_prompts]
    files = any(lists) or tuned is not None or labelled is not None
    adapter = adapter_of(adapter, None if files or model else "insecure_code")
    own = direction_preset(str(adapter)) if not files else None
    if own is None and (not all(lists) or metric is None):
        raise SettingsError("prompts: give --fit-prompts, --select-prompts, --test-prompts and --metric together")
    prompts = own.prompts if own else prompts_of([p for p in lists if p is not None])
    judged = parse_metric(metric or (own.judge if own else ""), JUDGES)
    comparison: Comparison
    if labelled is not None:
        settings, chat = load(model, None, None, state_dir)
        rows, other_rows = (
            rows_of_file(chat, p, settings.max_tokens) if p else [] for p in (labelled, control_labelled)
        )
        comparison = studies.labelled_messages(chat, rows, other_rows)
    elif tuned is not None:
        _, base = load(model, None, None, state_dir)
        others = [load(m, None, None, state_dir)[1] if m else None for m in (tuned, control)]
        assert others[0] is not None  # noqa: S101 - tuned is given
        chat, comparison = others[0], studies.checkpoint_pair(others[0], base, others[1])
    else:
        if adapter is None:
            raise SettingsError("adapter: give --adapter, --tuned or --labelled; there is nothing to compare")
        _, chat = load(model, adapter, scale, state_dir)
        bad, other = str(chat.active), control_adapter or (own.control if own else None)
        if other is not None:
            spec = adapter_spec(other, scale)
            add_adapter(chat, spec)
            chat.use(bad)
            other = spec.name
        comparison = studies.adapter_pair(chat, other)
    called = name or f"direction-{slug(tuned or (labelled.stem if labelled else str(adapter)))}"
    plan = studies.Plan(
        sites=tuple(parse_sites(sites, chat.layout)),
        steer=tuple(parse_sites(steer, chat.layout)) if steer else None,
        steered=steered or (own.steered if own else 60),
        interval=interval,
        random_directions=random_directions,
        permutations=permutations,
        prediction_scale=prediction_scale or (own.prediction_scale if own else None),
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    folder = out or Path("studies") / called
    result = studies.run_direction(
        comparison, prompts, judged, folder, plan, name=called, command=command_line(), progress=say
    )
    for line in (result["verdict"]["sentence"], *result["verdict"]["reasons"]):
        typer.echo(line)
    for line in result["verdict"]["warnings"]:
        typer.echo(f"warning: {line}")
    say_written(folder, "table.md", result["probe"].get("file"))


@study.command()
def transfer(
    subject: Annotated[
        list[str] | None, Flag(help="MODEL+ADAPTER, at least two; default: synthetic planted organisms")
    ] = None,
    organism: Annotated[list[str] | None, Flag(help="planted organisms as FAMILY:SEED; default: five, seed 0")] = None,
    fit_prompts: Lines = None,
    test_prompts: Lines = None,
    anchor_texts: Annotated[Path | None, Flag(help="JSON lines of messages to fit the maps on")] = None,
    metric: Annotated[str, Flag(help="judge of the subjects' answers: code, reckless or refusal")] = "code",
    anchors: Annotated[str, Flag(help="neutral or contrast")] = "neutral",
    depth: Annotated[float, Flag(help="0 is the first block, 1 the last")] = 1.0,
    draws: Annotated[int, Flag(help="random directions and shuffled maps as controls")] = 5,
    tests: Annotated[int, Flag(help="questions a planted organism is steered on")] = 100,
    interval: Annotated[float, Flag(help="widest half width of a rate that you accept")] = 0.2,
    scale: Annotated[float | None, Flag(help="strength of the subjects' adapters")] = None,
    seed: Seed = 0,
    out: Annotated[Path, Flag(help="folder to write to")] = Path("studies/transfer"),
    state_dir: State = None,
) -> None:
    """Does one model's direction work in another, through a ridge map? (arXiv 2606.20225, section on transfer)"""
    from probes.studies.subjects import planted_anchors, planted_subjects
    from probes.studies.transfer.plan import Settings as Maps
    from probes.studies.transfer.run import run_transfer

    if anchors not in ("neutral", "contrast"):
        raise SettingsError(f"anchors: {anchors!r} is none of neutral, contrast")
    left_out: dict[str, str] = {}
    if subject:
        if organism:
            raise SettingsError("organism: give subjects or organisms, not both")
        lists = [fit_prompts, test_prompts, anchor_texts]
        if not all(lists):
            raise SettingsError("prompts: --subject needs --fit-prompts, --test-prompts and --anchor-texts")
        fit, test, texts = (texts_of(p) for p in lists if p is not None)
        subjects = [subject_of(s, metric, fit, test, scale, state_dir) for s in subject]
    else:
        subjects = []
        for family, number in organisms_of(organism):
            more, without = planted_subjects([family], [number], settings_of(state_dir).state_dir, say, tests=tests)
            subjects += more
            left_out |= without
        texts = planted_anchors()
    maps = Maps(anchors=anchors, depth=depth, draws=draws, interval=interval, seed=seed)  # type: ignore[arg-type]
    result = run_transfer(subjects, texts, out, settings=maps, left_out=left_out, command=command_line(), progress=say)
    for mode, words in result["verdict"].items():
        typer.echo(f"{mode}: {words}")
    for left, why in left_out.items():
        typer.echo(f"left out: {left}: {why}")
    say_written(out, "TRANSFER.md", *(made.get("file") for made in result["probes"]))


@study.command()
def heads(
    adapter: Annotated[str | None, Flag(help="the adapter in use, or none; without any files: reckless_advice")] = None,
    choices: Annotated[Path | None, Flag(help="JSON lines: question, choices, misaligned (0 or 1), examples")] = None,
    select_prompts: Lines = None,
    test_prompts: Lines = None,
    benign: Annotated[Path | None, Flag(help="JSON lines of benign messages for the detector's threshold")] = None,
    metric: Metric = None,
    form: Annotated[str, Flag(help="how choices are asked: letters, likelihood, or auto")] = "auto",
    aim: Annotated[str, Flag(help="steer away from the behaviour or towards it")] = "away",
    alphas: Annotated[str, Flag(help="strengths to try, in standard deviations")] = "5,10,15,25,40",
    only: Annotated[str | None, Flag(help="heads to search, such as head[3,1],head[3,2]; default: all")] = None,
    search_questions: Annotated[int, Flag(help="questions on which every head is tried")] = 8,
    keep: Annotated[int, Flag(help="heads that are tested again on other questions")] = 12,
    retest_questions: Annotated[int, Flag(help="questions of the second test")] = 16,
    heldout_questions: Annotated[int, Flag(help="questions that are reported on")] = 30,
    interval: Annotated[float, Flag(help="widest half width of a rate that you accept")] = 0.2,
    draws: Annotated[int, Flag(help="random heads and directions as controls")] = 5,
    max_new_tokens: Tokens = 32,
    model: Model = None,
    scale: Scale = 1.0,
    seed: Seed = 0,
    name: Annotated[str | None, Flag(help="name of the study and its probe")] = None,
    out: Annotated[Path | None, Flag(help="folder to write to; default studies/NAME")] = None,
    state_dir: State = None,
) -> None:
    """Which attention heads carry a behaviour, and can it be steered there? (HSI, arXiv 2502.05945)"""
    from probes.binary_choice import read_choices
    from probes.capture.sites import parse_sites
    from probes.heads.search import SearchPlan
    from probes.organisms.judges import JUDGES
    from probes.studies.head_steering.run import HeadsPlan, Messages, run_heads
    from probes.studies.metric import parse_metric
    from probes.studies.presets import heads_preset

    if form not in ("auto", "letters", "likelihood") or aim not in ("away", "towards"):
        raise SettingsError("form is one of auto, letters, likelihood; aim is one of away, towards")
    strengths = numbers_of("alphas", alphas)
    files = [choices, select_prompts, test_prompts, benign]
    adapter = adapter_of(adapter, None if any(files) or model else "reckless_advice")
    if any(files):
        if not all(files) or metric is None:
            raise SettingsError(
                "choices: give --choices, --select-prompts, --test-prompts, --benign and --metric together"
            )
        questions = read_choices(choices)  # type: ignore[arg-type]
        messages = Messages(*(texts_of(p) for p in files[1:] if p is not None))
        judged = parse_metric(metric, JUDGES)
    else:
        judge, questions, messages = heads_preset(str(adapter))
        judged = parse_metric(metric or judge, JUDGES)
    _, chat = load(model, adapter, scale, state_dir)
    called = name or f"heads-{slug(adapter or 'base')}"
    plan = HeadsPlan(
        name=called,
        search=SearchPlan(
            aim=aim,  # type: ignore[arg-type]
            alphas=strengths,
            search_questions=search_questions,
            keep=keep,
        ),
        form=form,  # type: ignore[arg-type]
        retest_questions=retest_questions,
        heldout_questions=heldout_questions,
        interval=interval,
        draws=draws,
        open_draws=min(2, draws),
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    folder = out or Path("studies") / called
    searched: list[Site] | None = parse_sites(only, chat.layout) if only else None
    found = run_heads(chat, questions, messages, judged, folder, plan, heads=searched, command=command_line(), progress=say)
    typer.echo(str(found.verdict))
    for line in found.result["warnings"]:
        typer.echo(f"warning: {line}")
    say_written(folder, "RESULT.md", found.probe_path.name)


@study.command("safety-heads")
def safety_heads(
    adapter: Annotated[str | None, Flag(help="the adapter in use, or none; without any files: refusal")] = None,
    harmful: Annotated[Path | None, Flag(help="JSON lines of harmful requests; a field group keeps twins together")] = (
        None
    ),
    harmless: Annotated[Path | None, Flag(help="JSON lines of harmless requests, matched if you have them")] = None,
    attributed: Annotated[int, Flag(help="requests of each class that heads are scored on, at most")] = 24,
    dataset_prompts: Annotated[int, Flag(help="harmful requests for dataset-level Ships and Sahara, at most")] = 8,
    held_out: Annotated[int, Flag(help="held-out requests of each class that are answered, at most")] = 30,
    interval: Annotated[float, Flag(help="widest half width of a rate that you accept")] = 0.2,
    metric: Metric = None,
    against: Annotated[list[Path] | None, Flag(help="results of other fine-tunes of the same base")] = None,
    top: Annotated[str, Flag(help="how many of the best heads are ablated together")] = "1,3",
    draws: Annotated[int, Flag(help="random heads as controls")] = 5,
    max_new_tokens: Tokens = 24,
    model: Model = None,
    scale: Annotated[float | None, Flag(help="strength of the adapter; default: its manifest's")] = None,
    seed: Seed = 0,
    name: Annotated[str | None, Flag(help="name of the study and its probe")] = None,
    out: Annotated[Path | None, Flag(help="folder to write to; default studies/NAME")] = None,
    state_dir: State = None,
) -> None:
    """Which attention heads carry refusal? (Ships and Sahara, arXiv 2410.13708)"""
    from probes.organisms.judges import JUDGES
    from probes.studies.metric import parse_metric
    from probes.studies.presets import refusal_requests
    from probes.studies.safety_heads.run import SafetyPlan, run_safety_heads

    sizes = tuple(int(n) for n in numbers_of("top", top))
    if sizes != numbers_of("top", top):
        raise SettingsError(f"top: {top!r} is no list of whole numbers such as 1,3")
    if (harmful is None) != (harmless is None):
        raise SettingsError("harmless: give both --harmful and --harmless, or neither")
    if harmful is not None and harmless is not None:
        bad, good = requests_of(harmful), requests_of(harmless)
    else:
        bad, good = refusal_requests()
    adapter = adapter_of(adapter, None if harmful or model else "refusal")
    settings, chat = load(model, adapter, scale, state_dir)
    called = name or f"safety-heads-{slug(adapter or 'base')}"
    plan = SafetyPlan(
        name=called,
        top=sizes,
        draws=draws,
        attributed=attributed,
        dataset_prompts=min(dataset_prompts, attributed),
        held_out=held_out,
        interval=interval,
        max_new_tokens=max_new_tokens,
        max_tokens=settings.max_tokens,
        seed=seed,
        # The shipped refusal adapter was trained by this split of awry's own requests.
        split_seed=None if harmful else 0,
    )
    folder = out or Path("studies") / called
    result = run_safety_heads(
        chat,
        bad,
        good,
        folder,
        plan,
        metric=parse_metric(metric or "refusal", JUDGES),
        against=against or (),
        command=command_line(),
        on_progress=lambda stage, done, of: say(f"{stage}: {done} of {of}"),
        progress=say,
    )
    for heads_tried, words in result["verdicts"].items():
        typer.echo(f"{heads_tried}: {words}")
    say_written(folder, "RESULT.md", result["probe"].get("file"))


@study.command()
def report(
    studies: Annotated[Path, typer.Argument(help="folder of study folders")] = Path("docs/studies"),
    out: Annotated[Path, Flag(help="page to write")] = Path("docs/study.md"),
) -> None:
    """Write one page: what the papers claim beside what was measured here, row by row."""
    from probes.studies.summary import write_study_page

    write_study_page(studies, out)
    say(f"written to {out}")
