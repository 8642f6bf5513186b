// What a request costs, and what moving its split costs: closed forms. They are computed in Python
// too; tests hold the two within 1e-9 of each other.

// What one request costs: raysplit/budget/costs.py, docs/budget.md ------------------------------

// FLOPs of a decoder layer for `tokens` positions that each attend to `keys`.
function layerFlops(sizes, tokens, keys) {
  const query = sizes.num_attention_heads * sizes.head_dim;
  const kv = sizes.num_key_value_heads * sizes.head_dim;
  const projections = 2 * sizes.hidden_size * (query + kv);
  const feedForward = 3 * sizes.hidden_size * sizes.intermediate_size;
  return 2 * tokens * (projections + 2 * keys * query + feedForward);
}

function layerWeights(sizes) {
  const attention = 2 * (sizes.num_attention_heads + sizes.num_key_value_heads) * sizes.head_dim;
  return sizes.hidden_size * (attention + 3 * sizes.intermediate_size);
}

const embeddingWeights = (sizes) => sizes.vocab_size * sizes.hidden_size;

// Bytes of one token's keys and values in one layer.
const kvBytes = (sizes, device) =>
  (2 * sizes.num_key_value_heads * sizes.head_dim * device.kv_bits) / 8;

// t(n, k) = max(FLOPs / rate, bytes / bandwidth)
function passSeconds(sizes, device, layers, tokens, keys, head) {
  const flops =
    layers * layerFlops(sizes, tokens, keys) +
    (head ? 2 * sizes.hidden_size * sizes.vocab_size : 0);
  const weights = layers * layerWeights(sizes) + (head ? embeddingWeights(sizes) : 0);
  const bytes = (weights * device.weight_bits) / 8 + layers * kvBytes(sizes, device) * keys;
  return Math.max(
    flops / (device.compute_tflops * 1e12 * device.compute_utilisation),
    bytes / (device.bandwidth_gb_s * 1e9 * device.bandwidth_utilisation),
  );
}

function memoryBytes(sizes, device, layers, context) {
  const weights = layers * layerWeights(sizes) + embeddingWeights(sizes);
  return (weights * device.weight_bits) / 8 + layers * kvBytes(sizes, device) * context;
}

// What phone and edge take for p layers on the phone, whatever the network and the codec.
function computing(controls, p) {
  const { sizes } = content;
  const { phone, edge, prompt_tokens: prompt, output_tokens: output } = controls;
  const edgeLayers = sizes.num_hidden_layers - p;
  let [phoneSum, edgeSum] = [0, 0];
  const steps = Math.max(output, 2) - 1;
  for (let step = 1; step <= steps; step += 1) {
    phoneSum += passSeconds(sizes, phone, p, 1, prompt + step, false);
    edgeSum += passSeconds(sizes, edge, edgeLayers, 1, prompt + step, true);
  }
  const phoneBytes = memoryBytes(sizes, phone, p, prompt + output);
  const edgeBytes = memoryBytes(sizes, edge, edgeLayers, prompt + output);
  return {
    prompt: {
      phone: passSeconds(sizes, phone, p, prompt, prompt, false),
      edge: passSeconds(sizes, edge, edgeLayers, prompt, prompt, true),
    },
    token: { phone: phoneSum / steps, edge: edgeSum / steps },
    memory: phoneBytes,
    fits: phoneBytes <= phone.memory_gb * 1e9 && edgeBytes <= edge.memory_gb * 1e9,
  };
}

// While it sends: P_0 + a R
const radioPower = (network) =>
  network.radio_base_w + 1e-3 * network.radio_mw_per_mbit_s * network.uplink_mbit_s;

// One pass: t_UE + b / R + RTT + t_edge, and
// E_UE = P_compute t_UE + (P_0 + a R) t_air + P_wait (RTT + t_edge)
function pass(seconds, bits, phone, network) {
  const air = bits / (network.uplink_mbit_s * 1e6);
  const roundTrip = network.rtt_ms * 1e-3;
  return {
    air,
    seconds: seconds.phone + air + roundTrip + seconds.edge,
    joules:
      phone.compute_power_w * seconds.phone +
      radioPower(network) * air +
      phone.wait_power_w * (roundTrip + seconds.edge),
  };
}

// What moving the split costs in the middle of a request: raysplit/budget/moving.py ---------------

// Up, the phone computes the layers over the whole context. Down, the edge is sent their keys and
// values, or the hidden states before them, from which it computes them: what takes fewer bits.
function moving(controls, network, codec, from, to) {
  const { phone, edge, context_tokens: tokens } = controls;
  const layers = Math.abs(to - from);
  if (layers === 0) return { seconds: 0, joules: 0 };
  if (to > from) {
    const seconds = passSeconds(content.sizes, phone, layers, tokens, tokens, false);
    return { seconds, joules: seconds * phone.compute_power_w };
  }
  const hidden = content.bits[codec];
  const ofLayer = content.moving.kv_bits[codec];
  const keysAndValues = ofLayer === null ? Infinity : layers * ofLayer;
  const air = (tokens * Math.min(hidden, keysAndValues)) / (network.uplink_mbit_s * 1e6);
  const computed = keysAndValues > hidden;
  const seconds = computed ? passSeconds(content.sizes, edge, layers, tokens, tokens, false) : 0;
  return {
    seconds: air + seconds,
    joules: radioPower(network) * air + phone.wait_power_w * seconds,
  };
}

// The link: raysplit/radio/transport.py, docs/radio.md ----------------------------------------

// P(TTFT > deadline). At a constant rate it is certain; over the radio the sum of all blocks'
// attempts decides, whose distribution is a B-fold convolution.
function lateProbability(controls, first, bits, x) {
  const { deadline_s: deadline } = controls;
  const { radio } = content;
  if (deadline === null) return 0;
  if (!radio) return first.seconds > deadline ? 1 : 0;
  const left = deadline - (first.seconds - first.air);
  const slots = Math.floor(left / radio.slot_s + 1e-9);
  const blocks = Math.ceil(bits / radio.block_bits[x]);
  if (slots < blocks) return 1; // a block takes one attempt at least
  const within = attemptsWithin(x, blocks);
  return slots < within.length ? 1 - within[slots] : 0;
}

const known = new Map(); // by SNR and blocks; they change with the request alone
function attemptsWithin(x, blocks) {
  const key = `${x} ${blocks}`;
  if (!known.has(key)) {
    if (known.size > 2000) known.clear();
    known.set(key, cumulativeSum(content.radio.attempts[x], blocks));
  }
  return known.get(key);
}

// P(sum of `count` draws <= n) for n = 0, 1 ...; `chances` are those of 0, 1 ... in one draw.
function cumulativeSum(chances, count) {
  const size = count * (chances.length - 1) + 1;
  const length = 2 ** Math.ceil(Math.log2(Math.max(size, 2)));
  const re = new Float64Array(length);
  const im = new Float64Array(length);
  for (let k = 0; k < length; k += 1) {
    let [a, b] = [0, 0];
    chances.forEach((chance, j) => {
      const angle = (-2 * Math.PI * ((k * j) % length)) / length;
      a += chance * Math.cos(angle);
      b += chance * Math.sin(angle);
    });
    const magnitude = Math.hypot(a, b) ** count;
    const turned = Math.atan2(b, a) * count;
    // The conjugate, so that a forward transform gives the inverse's real part.
    [re[k], im[k]] = [magnitude * Math.cos(turned), -magnitude * Math.sin(turned)];
  }
  fourier(re, im);
  let sum = 0;
  return Float64Array.from({ length: size }, (_, n) => {
    sum += re[n] / length;
    return Math.min(Math.max(sum, 0), 1);
  });
}

// Discrete Fourier transform in place; the length is a power of two (Cooley and Tukey, 1965).
function fourier(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i += 1) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j], im[i], im[j]] = [re[j], re[i], im[j], im[i]];
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k += 1) {
      const c = Math.cos((-Math.PI * k) / half);
      const s = Math.sin((-Math.PI * k) / half);
      for (let i = k; i < n; i += 2 * half) {
        const j = i + half;
        const [a, b] = [re[j] * c - im[j] * s, re[j] * s + im[j] * c];
        [re[j], im[j]] = [re[i] - a, im[i] - b];
        [re[i], im[i]] = [re[i] + a, im[i] + b];
      }
    }
  }
}
