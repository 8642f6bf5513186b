// The panel: what the reader sets, and what is said and drawn.

const panel = document.getElementById("explorer");
const field = (name) => panel.querySelector(`[name="${name}"]`);

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

const DEVICES = ["phone", "edge", "network"];
const NUMBERS = ["prompt_tokens", "output_tokens", "deadline_s", "current", "context_tokens"];

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
      DEVICES.map((kind) => [kind, content.presets[kind][field(kind).value]]),
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
    ...(content.moving ? { current: numberOf("current") } : {}),
    ...(field("context_tokens") ? { context_tokens: numberOf("context_tokens") } : {}),
  };
}

function reset() {
  const { start } = content;
  for (const name of WEIGHTS.filter(field)) {
    field(name).value = String(start.weights[name]);
    field(`${name}-slider`).value = String(positionOf(name, start.weights[name]));
  }
  for (const name of [...DEVICES, ...NUMBERS]) {
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
  ...(content.moving ? [["moving there, once", movingCosts], ["moving pays from", stays]] : []),
];

function movingCosts(one) {
  const share = `${percent(one.moving, 2)} of PPL`;
  if (content.moving.per_layer) return share;
  return `${digits(one.moving_s)} s, ${digits(one.moving_j)} J: ${share}`;
}

// The smallest whole number of decisions in which a move costs no more than it gains.
function stays(one) {
  if (one.p === numberOf("current")) return "it is there";
  if (one.pays_after === null) return "never";
  const decisions = Math.max(Math.ceil(one.pays_after), 1);
  return `${decisions} decision${decisions === 1 ? "" : "s"} there`;
}

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
  const { state, cost: axis, current } = controls;
  const own = { ...started, state, cost: axis, ...(content.moving ? { current } : {}) };
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
