"""Turn a GGUF file into a checkpoint folder: config, safetensors, tokenizer, and a card.

    folder = import_model("smollm2-135m")            # importing.run: a name of the zoo, or a file
    checkpoint = open_checkpoint(folder)             # from here on like any other checkpoint

What a file says is taken over exactly, or the file is refused: every metadata key of its
architecture and every tensor must be understood, since one that is passed over (a scaled rotary
frequency, a bias) gives a model that runs and whose numbers are wrong. Tensors are dequantised and
written one after the other, so a model needs much less memory to be imported than to be run.

Names and locations are `raysplit.model.zoo`'s and `cache`'s; this file imports nothing.
"""
