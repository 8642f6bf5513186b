"""Language models: names, checkpoints, and spans of layers that load only their own weights.

Split point p means: layers [0, p) run on the UE, layers [p, L) at the edge, and the hidden state
after p layers crosses the link.

    checkpoint = open_checkpoint("meta-llama/Llama-2-7b-hf", "main")     # model.checkpoint
    ue = load_span(checkpoint, 0, 10)              # model.load: embedding and layers 0..9
    edge = load_span(checkpoint, 1, checkpoint.layers)           # layers 1..L-1, norm and head
    h1, h5 = ue.run(ue.embed(ids), 0, 10, keep=(1, 5))
    logits = edge.logits(edge.finish(edge.run(h5, 5, edge.stop)))

Names and locations (`zoo`, `location`, `config`) need no torch; this file imports nothing.
"""
