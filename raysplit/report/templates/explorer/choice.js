// From measured perplexity and costs to the best place: a split point with a codec.
//
// Everything that is known stands in the page's JSON block (raysplit/report/explorer.py).

const content = JSON.parse(document.getElementById("explorer-content").textContent);
const [firstSplitPoint, lastSplitPoint] = content.split_points;
const splitPoints = Array.from(
  { length: lastSplitPoint - firstSplitPoint + 1 },
  (_, i) => firstSplitPoint + i,
);

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
        ...(content.moving ? movingTo(controls, network, codec, p, scale) : {}),
      });
    });
  }
  const kept = places.flat().filter((place) => place.fits || !controls.only_fitting);
  return content.moving ? withStays(kept, controls.current) : kept;
}

// What moving to p from the current split point costs, and takes off the objective once.
function movingTo(controls, network, codec, p, scale) {
  const { weights, current } = controls;
  if (content.moving.per_layer) {
    return { moving: content.moving.per_layer * Math.abs(p - current) * scale };
  }
  const { seconds, joules } = moving(controls, network, codec, current, p);
  return {
    moving_s: seconds,
    moving_j: joules,
    moving: (weights.percent_per_second * seconds + weights.percent_per_joule * joules) / 100,
  };
}

// How many decisions the link must stay until a move has paid for itself: what moving costs over
// what each decision gains. null: never.
function withStays(places, current) {
  const here = bestOf(places.filter((one) => one.p === current));
  return places.map((one) => {
    const gain = here ? here.objective - one.objective : 0;
    return { ...one, pays_after: gain > 0 ? one.moving / gain : null };
  });
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
