"""The clean pass: the corpus over a perfect link, block by block, each kept in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection

from raysplit.base.errors import UserError
from raysplit.base.progress import progress_bar
from raysplit.measure.ledger import Ledger
from raysplit.measure.shards.job import Backend, Job
from raysplit.measure.shards.reference import CleanBlock, CleanReference
from raysplit.perplexity.estimate import InvalidNLLError


def clean_reference(
    job: Job,
    card_sha256: str,
    ledger: Ledger,
    running: Callable[[], Backend],
    keep: Collection[int] = (),
) -> CleanReference:
    """Return what the clean pass gives, running those of its blocks that the ledger lacks.

    Args:
        job: Model, corpus and split points.
        card_sha256: Names the protocol card.
        ledger: Holds what is known, and gets what is run.
        running: Gives the backend once something is missing.
        keep: Split points that will be asked for, whose hidden states are then at hand.

    Raises:
        UserError: The model gives no number for some sequence.
    """
    known = ledger.clean_reference(card_sha256)
    if known is not None:
        found = CleanReference.from_bytes(known)
        if found.covers(job.split_points):  # another experiment's may be a narrower one
            return found
    blocks = _blocks(job, card_sha256, ledger, running, keep)
    try:
        reference = CleanReference.gather(blocks, job.corpus.tokens_N, job.split_points[0])
    except InvalidNLLError as error:
        raise UserError(
            f"{job.model.name} cannot be measured: {error}; check its weights, or set "
            "model.dtype to float32"
        ) from None
    ledger.add_clean_reference(card_sha256, job.split_points, reference.to_bytes())
    return reference


def _blocks(
    job: Job,
    card_sha256: str,
    ledger: Ledger,
    running: Callable[[], Backend],
    keep: Collection[int],
) -> dict[int, CleanBlock]:
    kept = ledger.clean_blocks(card_sha256, job.split_points)
    done = {block: CleanBlock.from_bytes(content) for block, content in kept.items()}
    missing = [block for block in job.all_blocks if block not in done]
    if missing:
        total = len(job.all_blocks)
        with progress_bar("clean pass", total=total, done=len(done)) as advance:
            for block, part in running().clean_blocks(missing, keep):
                if part.is_sound:
                    ledger.add_clean_block(card_sha256, job.split_points, block, part.to_bytes())
                done[block] = part
                advance(1)
    return done
