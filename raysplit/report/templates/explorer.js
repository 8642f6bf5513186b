// The interactive panel: from measured perplexity and closed forms to the best split point.
//
// Everything it knows stands in the page's JSON block (raysplit/report/explorer.py). What is
// computed here is computed in Python too; tests hold the two within 1e-9 of each other.
"use strict";
(() => {
  const content = JSON.parse(document.getElementById("explorer-content").textContent);
  const panel = document.getElementById("explorer");
  const field = (name) => panel.querySelector(`[name="${name}"]`);
  const [firstSplitPoint, lastSplitPoint] = content.split_points;
  const splitPoints = range(firstSplitPoint, lastSplitPoint);

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

  // One pass: t_UE + b / R + RTT + t_edge, and
  // E_UE = P_compute t_UE + (P_0 + a R) t_air + P_wait (RTT + t_edge)
  function pass(seconds, bits, phone, network) {
    const air = bits / (network.uplink_mbit_s * 1e6);
    const roundTrip = network.rtt_ms * 1e-3;
    const radioPower =
      network.radio_base_w + 1e-3 * network.radio_mw_per_mbit_s * network.uplink_mbit_s;
    return {
      air,
      seconds: seconds.phone + air + roundTrip + seconds.edge,
      joules:
        phone.compute_power_w * seconds.phone +
        radioPower * air +
        phone.wait_power_w * (roundTrip + seconds.edge),
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

  // Measured values [p][state] at a link state: one of those that were measured or, over the
  // radio, linear between the two losses beside the one that the SNR means.
  function measuredAt(values, codec, state) {
    const { radio } = content;
    if (!radio) {
      const index = content.link.reduce((sum, { values: axis }, k) => sum * axis.length + state[k], 0);
      return values[codec].map((ofSplitPoint) => ofSplitPoint[index]);
    }
    const axis = radio.loss_axis;
    const loss = radio.loss[codec][state[0]];
    const right = Math.max(axis.findIndex((value, i) => i > 0 && value >= loss), 1);
    const share = (loss - axis[right - 1]) / (axis[right] - axis[right - 1]);
    return values[codec].map((of) => (1 - share) * of[right - 1] + share * of[right]);
  }

  // The objective, Eq. 7 and 8 and the reward `budget` in one ------------------------------------

  // All split points with all codecs that may be chosen, in one link state.
  function evaluate(controls, state, devices = splitPoints.map((p) => computing(controls, p))) {
    const { weights, phone } = controls;
    const { radio } = content;
    const network = radio
      ? { ...controls.network, uplink_mbit_s: radio.rate_mbit_s[state[0]] }
      : controls.network;
    const places = splitPoints.map(() => []); // by split point, so that equal ones are in order
    for (const name of controls.codecs) {
      const codec = content.codecs.indexOf(name);
      const bits = content.bits[codec];
      const logPpl = measuredAt(content.log_ppl, codec, state);
      const stderr = measuredAt(content.stderr, codec, state);
      const scale = content.relative_to_first ? Math.exp(logPpl[0] - content.clean_log_ppl) : 1;
      splitPoints.forEach((p, i) => {
        const first = pass(devices[i].prompt, controls.prompt_tokens * bits, phone, network);
        const next = pass(devices[i].token, bits, phone, network);
        const joules = first.joules + (controls.output_tokens - 1) * next.joules;
        const late = lateProbability(controls, first, controls.prompt_tokens * bits, state[0]);
        const ppl = Math.exp(logPpl[i] - content.clean_log_ppl); // over the clean one
        const paid =
          weights.percent_per_second * first.seconds +
          weights.percent_per_joule * joules +
          weights.percent_per_miss * late;
        places[i].push({
          p,
          codec: name,
          fits: devices[i].fits,
          ppl,
          ppl_half: 1.96 * ppl * stderr[i], // of a 95 % interval
          first_s: first.seconds,
          next_s: next.seconds,
          joules,
          memory_bytes: devices[i].memory,
          late,
          computation: content.computation[i],
          objective: ppl + weights.lambda * content.computation[i] * scale + paid / 100,
        });
      });
    }
    return places.flat().filter((place) => place.fits || !controls.only_fitting);
  }

  // The place with the smallest objective; of equal ones the first.
  const bestOf = (places) =>
    places.reduce((best, one) => (best && best.objective <= one.objective ? best : one), null);

  // Places that no other dominates: is at most as large in both, and smaller in one.
  function frontOf(places, cost) {
    const beats = (a, b) =>
      a[cost] <= b[cost] && a.ppl <= b.ppl && (a[cost] < b[cost] || a.ppl < b.ppl);
    return places
      .filter((one) => !places.some((other) => beats(other, one)))
      .sort((a, b) => a[cost] - b[cost]);
  }

  // The best place over the first link coordinate, the others as they are chosen.
  function bestOverLink(controls) {
    const devices = splitPoints.map((p) => computing(controls, p));
    return content.link[0].values
      .map((x, i) => ({ x, best: bestOf(evaluate(controls, [i, ...controls.state.slice(1)], devices)) }))
      .filter(({ best }) => best);
  }

  // Controls --------------------------------------------------------------------------------------

  const WEIGHTS = Object.keys(content.start.weights);
  // A slider's middle: the run's own weight, or where that is 0 one that is felt.
  const UNITS = { lambda: 0.2, percent_per_second: 5, percent_per_joule: 1, percent_per_miss: 20 };
  const MIDDLE = 50;
  const STEPS_A_DECADE = 20;
  const unit = (name) => content.start.weights[name] || UNITS[name];

  function weightAt(name, position) {
    if (position === 0) return 0;
    if (position === MIDDLE) return unit(name);
    return Number((unit(name) * 10 ** ((position - MIDDLE) / STEPS_A_DECADE)).toPrecision(3));
  }

  function positionOf(name, weight) {
    if (weight <= 0) return 0;
    const position = MIDDLE + STEPS_A_DECADE * Math.log10(weight / unit(name));
    return Math.min(Math.max(Math.round(position), 1), 2 * MIDDLE);
  }

  const linkField = (k) => field(`link-${k}`);
  const codecFields = () => [...panel.querySelectorAll('[name="codec"]')];
  const numberOf = (name) => (field(name) ? field(name).valueAsNumber : 0);

  // What the reader has set; null while a field holds no number that can be.
  function read() {
    if (![...panel.querySelectorAll("input")].every((input) => input.checkValidity())) return null;
    const codecs = codecFields();
    return {
      weights: Object.fromEntries(WEIGHTS.map((name) => [name, numberOf(name)])),
      ...Object.fromEntries(
        ["phone", "edge", "network"].map((kind) => [kind, content.presets[kind][field(kind).value]]),
      ),
      prompt_tokens: numberOf("prompt_tokens"),
      output_tokens: numberOf("output_tokens"),
      deadline_s: field("deadline_s") ? numberOf("deadline_s") : null,
      codecs: codecs.length
        ? codecs.filter((box) => box.checked).map((box) => box.value)
        : [...content.codecs],
      only_fitting: field("only_fitting").checked,
      state: content.link.map((_, k) => numberOf(`link-${k}`)),
      cost: field("cost").value,
    };
  }

  function reset() {
    const { start } = content;
    for (const name of WEIGHTS.filter(field)) {
      field(name).value = String(start.weights[name]);
      field(`${name}-slider`).value = String(positionOf(name, start.weights[name]));
    }
    for (const name of ["phone", "edge", "network", "prompt_tokens", "output_tokens", "deadline_s"]) {
      if (field(name)) field(name).value = String(start[name]);
    }
    for (const box of codecFields()) box.checked = start.codecs.includes(box.value);
    field("only_fitting").checked = start.only_fitting;
    content.link.forEach(({ values }, k) => {
      linkField(k).value = String(Math.floor(values.length / 2));
    });
    const { weights } = start;
    field("cost").value = weights.percent_per_second
      ? "first_s"
      : weights.percent_per_joule
        ? "joules"
        : "computation";
  }

  // Words -----------------------------------------------------------------------------------------

  const digits = (value) => String(Number(value.toPrecision(3))).replace("-", "−");
  const percent = (share, places = 1) =>
    `${(100 * share).toFixed(places).replace(/^-(0\.?0*)$/, "$1").replace("-", "−")} %`;
  const bytes = (value) => (value >= 1e8 ? `${digits(value / 1e9)} GB` : `${digits(value / 1e6)} MB`);
  const layers = (p) => `${p} layer${p === 1 ? "" : "s"}`;
  const withUnit = (axis, i) => `${digits(axis.values[i])} ${axis.unit}`.trim();
  const where = (state) =>
    content.link.map((axis, k) => `${axis.name} = ${withUnit(axis, state[k])}`).join(", ");
  const stated = (place) =>
    content.codecs.length > 1 ? `${place.p}, ${place.codec}` : String(place.p);

  const ROWS = [
    ["best split point", stated],
    ["objective beyond clean perplexity", (one) => percent(one.objective - 1, 2)],
    ["perplexity beyond clean", (one) => `${percent(one.ppl - 1)} ± ${(100 * one.ppl_half).toFixed(1)}`],
    ["first token", (one) => `${digits(one.first_s)} s`],
    ["each further one", (one) => `${digits(one.next_s)} s`],
    ["energy a request", (one) => `${digits(one.joules)} J`],
    ["phone's memory", (one) => bytes(one.memory_bytes)],
    ...(content.start.deadline_s === null ? [] : [["deadline missed", (one) => percent(one.late, 0)]]),
  ];

  // Drawing ---------------------------------------------------------------------------------------

  const views = {}; // null while one is being made
  const beyond = (share) => 100 * (share - 1);
  const tip = (place) => ({
    place: stated(place),
    said: percent(place.objective - 1, 2),
    ppl: percent(place.ppl - 1),
    costs: `${digits(place.first_s)} s, ${digits(place.joules)} J`,
  });

  function points(places, x, value, half) {
    return places.map((one) => ({
      p: one.p,
      x: x(one),
      value: beyond(value(one)),
      low: beyond(value(one) - half(one)),
      high: beyond(value(one) + half(one)),
      codec: one.codec,
      ...tip(one),
    }));
  }

  function smallestBySplitPoint(places) {
    return splitPoints
      .map((p) => bestOf(places.filter((one) => one.p === p)))
      .filter((one) => one)
      .map(({ p, objective }) => ({ p, value: beyond(objective) }));
  }

  function draw(name, data) {
    const view = views[name];
    if (view) {
      for (const [key, rows] of Object.entries(data)) view.data(key, rows);
      view.runAsync();
    } else if (!(name in views)) {
      embed(name, data);
    }
  }

  // `ast`: expressions are interpreted, as the page's policy forbids to make functions of texts.
  function embed(name, datasets) {
    const options = { ast: true, actions: false, renderer: "svg" };
    views[name] = null;
    window.vegaEmbed(`#explorer-${name}`, { ...content.charts[name], datasets }, options).then(
      ({ view }) => {
        views[name] = view;
        show();
      },
    );
  }

  // What the page shows for some controls; `own` are the run's own over the same link.
  function answer(controls) {
    const places = evaluate(controls, controls.state);
    return { places, best: bestOf(places), front: frontOf(places, controls.cost) };
  }

  function show() {
    const controls = read();
    field("problem").hidden = controls !== null;
    if (!controls) return;
    for (const [k, axis] of content.link.entries()) {
      const text = withUnit(axis, controls.state[k]);
      linkField(k).setAttribute("aria-valuetext", text);
      panel.querySelector(`output[for="explorer-link-${k}"]`).textContent = text;
    }
    const checked = codecFields().filter((box) => box.checked);
    for (const box of codecFields()) box.disabled = checked.length === 1 && box.checked;
    const own = { ...started, state: controls.state, cost: controls.cost };
    const [now, before] = [answer(controls), answer(own)];
    const overLink = bestOverLink(controls);
    say(controls, now.best, before.best);
    const rowOf = ({ x, best }) => ({ x, p: best.p, codec: best.codec, ...tip(best) });
    draw("map", {
      here: [{ x: content.link[0].values[controls.state[0]] }],
      run: bestOverLink(own).map(rowOf),
      places: overLink.map(rowOf),
    });
    const half = (one) => one.ppl_half;
    const objective = (places) => points(places, (one) => one.p, (one) => one.objective, half);
    const best = now.best ? [now.best] : [];
    draw("objective", {
      run: smallestBySplitPoint(before.places),
      places: objective(now.places),
      best: objective(best),
    });
    const cost = (places) => points(places, (one) => one[controls.cost], (one) => one.ppl, half);
    draw("front", {
      run: cost(before.front),
      places: cost(now.places),
      front: cost(now.front),
      best: cost(best),
    });
    window.raysplitExplorer = { controls, ...now, overLink }; // all digits, for who checks them
  }

  function say(controls, best, before) {
    const out = document.getElementById("explorer-answer");
    const codec = best && content.codecs.length > 1 ? ` and ${best.codec} states` : "";
    out.textContent = best
      ? `At ${where(controls.state)}: ${layers(best.p)} on the phone${codec}.`
      : "No split point fits into this phone and this edge.";
    const body = document.getElementById("explorer-table");
    body.replaceChildren(
      ...ROWS.map(([title, text]) => {
        const row = document.createElement("tr");
        const head = document.createElement("th");
        head.scope = "row";
        head.textContent = title;
        row.append(head);
        for (const one of [best, before]) row.insertCell().textContent = one ? text(one) : "–";
        return row;
      }),
    );
  }

  function range(first, last) {
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  }

  let asked = false;
  function showSoon() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      show();
    });
  }

  panel.addEventListener("input", ({ target }) => {
    const name = target.name.replace(/-slider$/, "");
    if (target.name.endsWith("-slider")) {
      field(name).value = String(weightAt(name, target.valueAsNumber));
    } else if (WEIGHTS.includes(name) && target.checkValidity()) {
      field(`${name}-slider`).value = String(positionOf(name, target.valueAsNumber));
    }
    showSoon();
  });
  field("reset").addEventListener("click", () => {
    reset();
    showSoon();
  });

  reset();
  const started = read();
  document.getElementById("explorer-off").hidden = true;
  panel.hidden = false;
  show();
})();
