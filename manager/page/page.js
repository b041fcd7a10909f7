// The status page: rows that come once a second, a square for each shard, totals, and one shard in detail.

const STATES = ["up", "offline", "lost", "stale", "never_seen"];
/** Steps that sparklines show. */
const STEPS = 120;
/** Gateway latency, seconds, from which a shard is marked as slow. */
const SLOW = 1;
/** Nothing came for so long, ms: the link is broken, whatever the browser says. */
const SILENT = 5000;
/** And for so long, ms: it is made anew, for a browser may not notice that its cable was pulled. */
const GONE = 30000;

const $ = (selector, within = document) => within.querySelector(selector);

/** Shards by id: `{row, cell, rates, past}`. */
const shards = new Map();
const totals = { up: [], events: [], commands: [], latency: [], rejected: [] };
let columns = [];
let now = 0;
let heard = 0;
let at = null;

// --- Rows ---------------------------------------------------------------------------------------------------------------

/** Takes a shard's new row. */
function take(values) {
  const [id] = values;
  let shard = shards.get(id);
  if (values.length === 1) {
    shard?.cell.remove();
    shards.delete(id);
    return;
  }
  const row = Object.fromEntries(columns.map((name, n) => [name, values[n]]));
  if (!shard) {
    shard = { row, cell: newCell(id), rates: {}, past: { latency: [], events: [], commands: [] } };
    shards.set(id, shard);
  }
  advance(shard, row);
  shard.row = row;
  show(shard);
}

/** Touches only what is new: mostly nothing is, and the browser need not lay thousands of squares out anew. */
function show({ row, cell }) {
  const classes = row.state + (row.latency > SLOW ? " slow" : "") + (row.id === at ? " at" : "");
  if (cell.className !== classes) {
    cell.className = classes;
    const slow = row.latency > SLOW ? `, latency ${milliseconds(row.latency)}` : "";
    cell.title = `shard ${row.id}: ${row.state.replace("_", " ")}${slow}`;
  }
  if (cell.hidden === isWanted(row)) cell.hidden = !cell.hidden;
}

/** What it counted since its last report, by second. A total that fell began anew. */
function advance(shard, row) {
  const before = shard.row;
  const seconds = row.last_report - before.last_report;
  if (row.state !== "up" && row.state !== "offline") shard.rates = {};
  if (!(seconds > 0)) return;
  for (const name of ["events", "commands"]) {
    const more = row[name] - before[name];
    shard.rates[name] = row[name] === null ? undefined : (more < 0 ? row[name] : more) / seconds;
    push(shard.past[name], shard.rates[name]);
  }
  push(shard.past.latency, row.latency);
}

function push(past, value) {
  past.push(value ?? NaN);
  if (past.length > STEPS) past.shift();
}

/** A square at its place: ids ascend, and mostly come in order. */
function newCell(id) {
  const cell = document.createElement("b");
  cell.dataset.id = id;
  cell.id = `shard-${id}`;
  cell.textContent = id;
  cell.setAttribute("role", "option");
  let after = map.lastElementChild;
  while (after && Number(after.dataset.id) > id) after = after.previousElementSibling;
  after ? after.after(cell) : map.prepend(cell);
  return cell;
}

// --- The fleet ----------------------------------------------------------------------------------------------------------

function showTotals() {
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  const sums = { events: 0, commands: 0, rejected: 0 };
  const latencies = [];
  for (const { row, rates } of shards.values()) {
    counts[row.state] += 1;
    sums.events += rates.events ?? 0;
    sums.commands += rates.commands ?? 0;
    sums.rejected += row.rejected;
    if (row.latency !== null) latencies.push(row.latency);
  }
  latencies.sort((a, b) => a - b);
  const median = latencies[Math.floor(latencies.length / 2)];
  total("up", counts.up, `${counts.up} / ${shards.size}`);
  total("events", sums.events, short(sums.events));
  total("commands", sums.commands, short(sums.commands));
  total("latency", median, median === undefined ? "–" : milliseconds(median));
  total("rejected", sums.rejected, short(sums.rejected));
  for (const state of STATES) $(`input[value=${state}] ~ output`).value = counts[state];
  map.classList.toggle("small", shards.size > 1500);
  map.style.setProperty("--cell", shards.size > 4000 ? "9px" : shards.size > 1500 ? "14px" : "26px");
  $("#hint").textContent = shards.size === 0 ? "No shard has reported yet." : "";
}

function total(name, value, text) {
  push(totals[name], value);
  const figure = document.getElementById(name);
  $("output", figure).value = text;
  draw($("path", figure), totals[name], 30);
}

/** Draws a sparkline from zero to the greatest value; it breaks off where nothing is known. */
function draw(line, past, height) {
  const top = Math.max(...past.filter(Number.isFinite), 1e-9);
  const step = (value, n) => {
    if (!Number.isFinite(value)) return "";
    const from = Number.isFinite(past[n - 1]) ? "L" : "M";
    return `${from}${n + STEPS - past.length},${height - 2 - (value / top) * (height - 4)}`;
  };
  line.setAttribute("d", past.map(step).join(""));
}

const short = (n) => new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(n);
const milliseconds = (seconds) => `${Math.round(seconds * 1000)} ms`;

function ago(time) {
  if (time === null || time === undefined) return "–";
  const seconds = Math.max(0, now - time);
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

// --- The filter ---------------------------------------------------------------------------------------------------------

let wantedStates = new Set(STATES);
let wantedIds = null;
let areRejecting = false;

function isWanted(row) {
  const isNamed = !wantedIds || wantedIds.some(([from, to]) => from <= row.id && row.id <= to);
  return isNamed && wantedStates.has(row.state) && (!areRejecting || row.rejected > 0);
}

function filter() {
  wantedStates = new Set([...document.querySelectorAll("fieldset input:checked")].map((box) => box.value));
  areRejecting = $("#rejecting").checked;
  const parts = $("#ids").value.split(/[\s,]+/).filter(Boolean);
  const ranges = parts.map((part) => /^(\d+)(?:-(\d+))?$/.exec(part));
  const wrong = ranges.indexOf(null);
  $("#ids-wrong").textContent = wrong < 0 ? "" : `“${parts[wrong]}” is neither an id nor a range such as 10-20`;
  wantedIds = parts.length && wrong < 0 ? ranges.map(([, from, to]) => [Number(from), Number(to ?? from)]) : null;
  for (const { row, cell } of shards.values()) cell.hidden = !isWanted(row);
}

$("#filter").addEventListener("input", filter);
$("#filter").addEventListener("submit", (event) => event.preventDefault());

// --- One shard ----------------------------------------------------------------------------------------------------------

const detail = $("#detail");

function open(id) {
  const before = shards.get(at)?.cell;
  before?.classList.remove("at");
  before?.removeAttribute("aria-selected");
  if (id !== at) {
    // What is asked for comes a moment later.
    $("#reasons").textContent = "";
    $("tbody", detail).replaceChildren();
  }
  at = id;
  const cell = shards.get(id)?.cell;
  cell?.classList.add("at");
  cell?.setAttribute("aria-selected", "true");
  cell?.scrollIntoView({ block: "nearest" });
  map.setAttribute("aria-activedescendant", cell?.id ?? "");
  if (!detail.hidden) showDetail();
}

function close() {
  detail.hidden = true;
  map.focus();
}

function showDetail() {
  const shard = shards.get(at);
  if (!shard) return close();
  const { row, rates, past } = shard;
  detail.hidden = false;
  $("h2", detail).textContent = `Shard ${row.id}: ${row.state.replace("_", " ")}`;
  $("#meaning").textContent = $(`input[value=${row.state}]`).parentElement.title;
  const facts = [
    ["gateway latency", row.latency === null ? "–" : milliseconds(row.latency), past.latency],
    ["events a second", rates.events === undefined ? "–" : short(rates.events), past.events],
    ["commands a second", rates.commands === undefined ? "–" : short(rates.commands), past.commands],
    ["last report", ago(row.last_report)],
    ["began", ago(row.started_at)],
    ["gateway sessions begun", row.sessions ?? "–"],
    ["command errors", row.errors ?? "–"],
    ["samples rejected", row.rejected],
    ["series", row.series],
  ];
  $("dl", detail).replaceChildren(...facts.map(fact));
  showInstances(row.id);
}

function fact([name, value, past]) {
  const div = document.createElement("div");
  div.append(element("dt", name), element("dd", value));
  if (past?.length > 1) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${STEPS} 24`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS(svg.namespaceURI, "path"));
    draw(svg.firstChild, past, 24);
    div.lastChild.append(svg);
  }
  return div;
}

async function showInstances(id) {
  const answer = await fetch(`api/v1/shards/${id}`).catch(() => null);
  const shard = answer?.ok && (await answer.json().catch(() => null));
  if (!shard || id !== at) return;
  const { instances, rejected_samples: rejected } = shard;
  const reasons = Object.entries(rejected).map(([reason, n]) => `${n} by ${reason}`);
  $("#reasons").textContent = reasons.length ? `Rejected: ${reasons.join(", ")}` : "";
  $("tbody", detail).replaceChildren(
    ...instances.map((i) => {
      const row = document.createElement("tr");
      const stream = i.transport === "http" ? "–" : i.connected ? "open" : "broken";
      const texts = [i.client || i.instance, i.transport, stream, ago(i.started_at), ago(i.last_report), i.last_sequence];
      row.append(...texts.map((text) => element("td", text)));
      row.title = i.instance;
      return row;
    }),
  );
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

const map = $("#map");
map.addEventListener("click", (event) => {
  const { id } = event.target.dataset;
  if (id === undefined) return;
  open(Number(id));
  showDetail();
});
$("button", detail).addEventListener("click", close);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !detail.hidden) close();
});
map.addEventListener("keydown", (event) => {
  const cells = [...map.children].filter((cell) => !cell.hidden);
  if (cells.length === 0) return;
  const here = cells.indexOf(shards.get(at)?.cell);
  const columns = getComputedStyle(map).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const ends = { Home: 0, End: cells.length - 1 }[event.key];
  if (event.key === "Enter" && here >= 0) showDetail();
  else if (ends !== undefined) open(Number(cells[ends].dataset.id));
  else if (step !== undefined) {
    const next = here < 0 ? 0 : Math.min(Math.max(here + step, 0), cells.length - 1);
    open(Number(cells[next].dataset.id));
  } else return;
  event.preventDefault();
});

// --- The link -----------------------------------------------------------------------------------------------------------

const link = $("#link");
let source;
let tried;

function connect() {
  source?.close();
  tried = performance.now();
  source = new EventSource("api/v1/shards/live");
  source.addEventListener("columns", (event) => {
    columns = JSON.parse(event.data);
    // All rows follow, so what is not among them is no longer there.
    for (const { cell } of shards.values()) cell.dataset.old = "";
  });
  source.addEventListener("rows", (event) => {
    const { time, rows, more } = JSON.parse(event.data);
    now = time;
    heard = performance.now();
    for (const row of rows) {
      take(row);
      delete shards.get(row[0])?.cell.dataset.old;
    }
    if (more) return;
    for (const cell of map.querySelectorAll("[data-old]")) take([Number(cell.dataset.id)]);
    showTotals();
    if (!detail.hidden) showDetail();
    showLink();
  });
  source.addEventListener("error", showLink);
}

function showLink() {
  const isSilent = heard > 0 && performance.now() - heard > SILENT;
  const isBroken = source.readyState !== EventSource.OPEN || isSilent;
  link.classList.toggle("broken", isBroken);
  link.textContent = isBroken
    ? `no link to the manager: what is shown is ${heard ? "old" : "nothing"}`
    : `live, ${new Date(now * 1000).toLocaleTimeString()}`;
}

connect();
setInterval(() => {
  // A browser gives up when something else answers, as a proxy without its manager, and may ask on a connection that is dead.
  const patience = source.readyState === EventSource.OPEN ? GONE : SILENT;
  if (performance.now() - Math.max(heard, tried) > patience) connect();
  showLink();
}, 1000);
