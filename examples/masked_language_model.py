"""Pretrain a small Transformer on text without labels, then let it learn from a few.

    python examples/masked_language_model.py            # some minutes
    python examples/masked_language_model.py --fast

The text is the documentation that installed packages ship: passages of docstrings from matplotlib,
NumPy, SciPy, scikit-learn, SymPy and PyTorch, read from their files. The task: which of the six
libraries does a passage describe? (Their names are taken out of it. Training and test passages are
from different files.)

A masked language model learns to tell hidden words from the rest of the passage. Its encoder is
then fine-tuned on 20, 100 and 500 labelled passages, beside one that starts from scratch; all
seeds of an arm train at once, and the two arms share passages and order. Prints what the model
guesses for some hidden words, and accuracies with the paired gain and its 95 % interval
(Student's t); writes `masked_language_model.json` and `masked_language_model.png`.
"""

from __future__ import annotations

import argparse
import ast
import collections
import importlib.util
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from _fashion_mnist import console, parse, spread
from rich.table import Table
from torch import Tensor, nn, vmap

import fdnn
from fdnn import (
    Model,
    data,
    functionalize,
    losses,
    metrics,
    optim,
    pretrain,
    random,
    schedules,
    train,
    transfer,
)
from fdnn.nn import TokenEncoder

LIBRARIES = ("matplotlib", "numpy", "scipy", "sklearn", "sympy", "torch")
PADDING, MASK, UNKNOWN = range(3)
SHORTEST, LONGEST = 12, 20  # words in a passage
COUNTS, STEPS, BATCH = (20, 100, 500), 150, 20
LEARNING_RATE = 1e-3


class Text(NamedTuple):
    """Passages as numbers; `words` says which number is which word."""

    train: data.Batch
    test: data.Batch
    words: list[str]


class Classifier(nn.Module):
    """The mean of what the encoder says of each word, and a linear layer."""

    def __init__(self, encoder: TokenEncoder, classes: int):
        super().__init__()
        self.encoder = encoder
        self.output = nn.Linear(encoder.token.embedding_dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        real = (tokens != PADDING)[..., None]
        return self.output((self.encoder(tokens) * real).sum(1) / real.sum(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="fine-tuning runs of each arm")
    parser.add_argument("--epochs", type=int, default=12, help="of pretraining")
    parser.add_argument("--passages", type=int, default=4000, help="at most, of each library")
    parser.add_argument("--vocabulary", type=int, default=1500, help="words, the most frequent")
    parser.add_argument("--width", type=int, default=64, help="of the Transformer")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where results are written")
    parser.add_argument("--no-compile", action="store_true", help="run eagerly")
    args = parse(parser, fast_seeds=2, fast_epochs=3)
    if args.fast:
        args.passages, args.vocabulary, args.width, args.no_compile = 300, 300, 16, True
    text = load(args)
    encoder = TokenEncoder(
        len(text.words), args.width, 4, 2, max_length=LONGEST, padding_idx=PADDING
    )
    layers = OrderedDict(encoder=encoder, output=nn.Linear(args.width, len(text.words)))
    language_model = functionalize(nn.Sequential(layers))
    learned, history = learn_language(language_model, text, args)
    guesses = guess(language_model, learned, text)
    classifier = functionalize(Classifier(encoder, len(LIBRARIES)))
    _, _, report = transfer.reuse(learned.params, into=classifier, key=random.key(0))
    console.print(f"Reused: {len(report.reused)} tensors; anew: {', '.join(report.reinitialized)}.")
    tx = optim.adamw(LEARNING_RATE)
    step = vmap(train.make_step(train.supervised(classifier, losses.cross_entropy), tx))
    run = step if args.no_compile else fdnn.jit(step)
    rows = [compare(classifier, tx, run, learned.params, text, count, args) for count in COUNTS]
    show(rows)
    plot(rows, history, args)
    found = {
        "libraries": LIBRARIES,
        "passages": {"train": len(text.train.inputs), "test": len(text.test.inputs)},
        "pretraining_loss": history.tolist(),
        "masked_words": guesses,
        "fine_tuning": [{k: v for k, v in row.items() if k != "values"} for row in rows],
    }
    (args.out / "masked_language_model.json").write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"Wrote {args.out}/masked_language_model.json and .png.")


def load(args: argparse.Namespace) -> Text:
    """Read the libraries' files in an order of their own, until there are passages enough."""
    parts: tuple[list[Any], list[Any]] = ([], [])
    seen: dict[str, int] = {}
    for label, library in enumerate(LIBRARIES):
        spec = importlib.util.find_spec(library)
        if spec is None or spec.origin is None:
            raise SystemExit(f"this example reads the documentation of {library}: install it")
        root = Path(spec.origin).parent
        files = [f for f in sorted(root.rglob("*.py")) if "test" not in str(f.relative_to(root))]
        taken = 0
        for i in random.permutation(random.key(label), len(files)).tolist():
            fresh = [p for p in dict.fromkeys(passages(files[i])) if p not in seen]
            seen |= dict.fromkeys(fresh, label)
            is_test = taken % 4 == 3  # every fourth file that has any
            parts[is_test].extend((passage.split(), label) for passage in fresh)
            taken += bool(fresh)
            if sum(owner == label for owner in seen.values()) >= args.passages:
                break
    counts = collections.Counter(word for passage, _ in parts[0] for word in passage)
    most = [word for word, _ in counts.most_common(args.vocabulary)]
    words = ["[pad]", "[mask]", "[unk]", *most]
    number = {word: i for i, word in enumerate(words)}
    batches = []
    for seed, part in enumerate(parts):
        tokens = torch.full((len(part), LONGEST), PADDING)
        for row, (passage, _) in zip(tokens, part, strict=True):
            row[: len(passage)] = torch.tensor([number.get(w, UNKNOWN) for w in passage])
        labels = torch.tensor([label for _, label in part])
        order = random.permutation(random.key(seed), len(part))
        batches.append(data.Batch(tokens[order], labels[order]))
    text = Text(batches[0], data.Batch(*(part[:3000] for part in batches[1])), words)
    known = (text.train.inputs > UNKNOWN).sum() / (text.train.inputs != PADDING).sum()
    console.print(
        f"{len(text.train.inputs)} passages to learn from, {len(text.test.inputs)} to test on; "
        f"{len(words)} words, which cover {known:.0%} of the text."
    )
    return text


def passages(file: Path) -> Iterator[str]:
    """The paragraphs of a file's docstrings: their first words, lower-case letters only."""
    try:
        found = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                words = re.findall(r"[a-z]+", paragraph.lower())
                words = [word for word in words if word not in LIBRARIES]
                if len(words) >= SHORTEST and ">>>" not in paragraph:
                    yield " ".join(words[:LONGEST])


def learn_language(model: Model, text: Text, args: argparse.Namespace) -> tuple[Any, Tensor]:
    """Pretrain: no label is looked at."""
    batch_size = 64
    steps = -(-len(text.train.inputs) // batch_size)
    tx = optim.chain(
        optim.clip_by_global_norm(1.0),
        optim.adamw(schedules.one_cycle(4e-3, total_steps=steps * args.epochs)),
    )
    loss = pretrain.masked_tokens(
        model, mask_token=MASK, num_tokens=len(text.words), ignore=(PADDING, UNKNOWN)
    )
    state, history = train.fit(
        train.make_step(loss, tx),
        train.init(model, tx, random.key(0)),
        (text.train.inputs,),
        epochs=args.epochs,
        batch_size=batch_size,
        compile=not args.no_compile,
    )
    first, last = history["loss"][0].item(), history["loss"][-1].item()
    console.print(f"Pretraining: loss {first:.2f} in the first epoch, {last:.2f} in the last.")
    return state, history["loss"]


def guess(model: Model, state: Any, text: Text) -> list[dict[str, Any]]:
    """Hide a word in each of some test passages, and ask for it."""
    tokens = text.test.inputs[:200]
    place = 5
    hidden = tokens.clone()
    hidden[:, place] = MASK
    with torch.no_grad():
        logits = model.apply(state.params, state.buffers, hidden)[0][:, place]
    best = logits.topk(3).indices
    known = tokens[:, place] > UNKNOWN
    hits = (best[:, 0] == tokens[:, place])[known].float().mean().item()
    console.print(f"Hidden words of test passages guessed at first try: {hits:.0%}.")
    shown = []
    for i in known.nonzero()[:5, 0].tolist():
        words = [text.words[t] for t in hidden[i].tolist() if t != PADDING]
        answer = text.words[tokens[i, place]]
        guesses = [text.words[t] for t in best[i].tolist()]
        console.print(" ".join(words), markup=False, style="dim")
        console.print(f"    it was '{answer}'; guesses: {', '.join(guesses)}")
        shown.append({"text": " ".join(words), "word": answer, "guesses": guesses})
    return shown


def compare(
    model: Model,
    tx: Any,
    run: Any,
    learned: dict[str, Tensor],
    text: Text,
    count: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Train on `count` labelled passages, from scratch and from the language model's encoder."""
    keys = random.split(random.key(2), args.seeds)
    picks = vmap(lambda key: random.permutation(key, len(text.train.inputs))[:count])(
        random.split(random.key(3), args.seeds)
    )
    steps = 5 if args.fast else STEPS
    order = vmap(lambda key: random.randint(key, (steps, BATCH), 0, count, torch.int64))(keys)
    batches = vmap(lambda pick, order: pick[order])(picks, order)  # (seeds, steps, BATCH)
    accuracies = []
    for source in (None, learned):
        if source is None:
            states = vmap(lambda key: train.init(model, tx, key))(keys)
        else:
            states = vmap(lambda key: transfer.init(model, tx, key, learned))(keys)
        for batch in batches.unbind(1):
            states, _ = run(states, (text.train.inputs[batch], text.train.targets[batch]))
        found = train.evaluate(
            model, states, text.test, {"accuracy": metrics.accuracy()}, batch_size=500
        )
        accuracies.append(found["accuracy"])
    scratch, reused = accuracies
    return {
        "labels": count,
        "scratch": spread(scratch),
        "reused": spread(reused),
        "gain": spread(reused - scratch),
        "values": (scratch, reused),
    }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("labels", "scratch (range)", "reused (range)", "gain, 95 %")
    for row in rows:
        gain = row["gain"]
        ranges = [
            f"{row[arm]['mean']:.3f} ({row[arm]['min']:.3f} to {row[arm]['max']:.3f})"
            for arm in ("scratch", "reused")
        ]
        interval = f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
        table.add_row(str(row["labels"]), *ranges, interval)
    console.print(table)


def plot(rows: list[dict[str, Any]], history: Tensor, args: argparse.Namespace) -> None:
    """Draw the pretraining loss, and every run's accuracy."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    left.plot(range(1, len(history) + 1), history.tolist(), "o-")
    left.set(xlabel="epoch", ylabel="cross-entropy of chosen words", title="pretraining")
    for i, arm in enumerate(("scratch", "reused")):
        for row in rows:
            values = row["values"][i].tolist()
            right.plot([row["labels"]] * len(values), values, ".", color=f"C{i}", alpha=0.5)
        means = [row[arm]["mean"] for row in rows]
        right.plot([row["labels"] for row in rows], means, "-", color=f"C{i}", label=arm)
    right.axhline(1 / len(LIBRARIES), color="grey", ls=":", label="one in six")
    right.set(xscale="log", xlabel="labelled passages", ylabel="test accuracy", title="fine-tuning")
    right.set_xticks(COUNTS, [str(count) for count in COUNTS])
    right.minorticks_off()
    right.legend()
    figure.suptitle(f"Which library is it? {args.seeds} seeds")
    figure.savefig(args.out / "masked_language_model.png", dpi=120)


if __name__ == "__main__":
    main()
