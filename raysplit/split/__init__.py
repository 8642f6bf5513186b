"""Cut a Hugging Face causal language model into spans of layers; load only a span's weights.

Split point p means: layers [0, p) run on the device, layers [p, L) at the edge, and the hidden
state after p layers crosses the link.

    checkpoint = open_checkpoint("meta-llama/Llama-2-7b-hf", "main")
    device = load_span(checkpoint, 0, 10)                    # embedding and layers 0..9
    edge = load_span(checkpoint, 1, checkpoint.layers)       # layers 1..L-1, norm and head
    h1, h5 = device.run(device.embed(ids), 0, 10, keep=(1, 5))
    logits = edge.logits(edge.finish(edge.run(h5, 5, edge.stop)))
"""

from raysplit.split.checkpoint import Checkpoint, open_checkpoint
from raysplit.split.load import load_span
from raysplit.split.span import Span, span_of
from raysplit.split.structure import FAMILIES

__all__ = ["FAMILIES", "Checkpoint", "Span", "load_span", "open_checkpoint", "span_of"]
