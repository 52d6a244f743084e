// The tree of turns, blocks and calls, with the waterfall on the same rows.

const ROW_HEIGHT = 28;
const TICK_WIDTH = 72; // the least pixels between two ticks of the waterfall
const COLLAPSED_FROM = 100; // a block with more calls than this begins collapsed
const FILTERS = {
  all: ["everything", () => true],
  turns: ["turns and blocks", (row) => row.kind === "turn" || row.kind === "block"],
  models: ["model calls", (row) => row.isModelCall],
  children: ["child runs", (row) => row.isChild],
  functions: ["other functions", (row) => row.kind === "function"],
  errors: ["errors", (row) => Boolean(row.error)],
  retried: ["retried calls", (row) => row.retries > 0],
  unmade: ["cached or replayed", (row) => row.origin in ORIGIN_MARKS],
  waited: ["calls that waited", (row) => row.isModelCall && row.sent - row.from > 0.05],
};

const calls = {
  shown: [], // the indexes of the rows in the list
  collapsed: new Set(
    rows
      .filter((row) => row.kind === "block" && row.descendants > COLLAPSED_FROM)
      .map((row) => row.index),
  ),
  filter: "all",
  words: "",
  window: [0, endOfRun], // the seconds that the waterfall shows
  selected: null,
};

/** The rows that match, with their ancestors; without a filter, those that are not collapsed. */
function chooseRows() {
  const isFree = calls.filter === "all" && calls.words === "";
  const shown = [];
  let found = 0;
  if (isFree) {
    for (let at = 0; at < rows.length; at++) {
      shown.push(at);
      if (calls.collapsed.has(at)) at += rows[at].descendants;
    }
  } else {
    const test = FILTERS[calls.filter][1];
    const added = new Set();
    for (const row of rows) {
      if (!test(row) || (calls.words && !wordsOf(row).includes(calls.words))) continue;
      found += 1;
      const chain = [];
      for (let at = row.index; at !== null && !added.has(at); at = rows[at].parent) chain.push(at);
      for (const at of chain.reverse()) {
        added.add(at);
        shown.push(at);
      }
    }
  }
  calls.shown = shown;
  calls.status.textContent = isFree
    ? `${plural(rows.length, "row")}, ${count(shown.length)} expanded`
    : `${plural(found, "match")} of ${plural(rows.length, "row")}`;
  const active = calls.selected ? shown.indexOf(calls.selected.index) : 0;
  calls.list.show(shown.length, Math.max(0, active));
  drawAxis();
}

function drawCall(at, isActive) {
  const row = rows[calls.shown[at]];
  const isOpen = !calls.collapsed.has(row.index) || calls.filter !== "all" || calls.words !== "";
  const marks = [
    row.origin in ORIGIN_MARKS
      ? make("span", { class: "mark" }, ORIGIN_MARKS[row.origin])
      : null,
    row.retries ? make("span", { class: "mark" }, plural(row.retries, "retry")) : null,
    row.error ? make("span", { class: "mark bad" }, "error") : null,
    row.isModelCall && row.item.finish_reason && CUT_REASONS.has(row.item.finish_reason)
      ? make("span", { class: "mark" }, "truncated")
      : null,
  ];
  const toggle = row.descendants
    ? button(isOpen ? "▾" : "▸", () => toggleRow(row), {
        class: "toggle",
        tabindex: "-1",
        "aria-label": `${isOpen ? "Collapse" : "Expand"} ${row.label}`,
      })
    : make("span", { class: "toggle" });
  const label = gridCell(
    "label",
    toggle,
    make("span", { class: `kind ${row.kind}` }),
    make("b", {}, textNodes(row.label)),
    marks,
    make("span", { class: "muted snippet", dir: "auto" }, textNodes(snippet(row))),
  );
  label.style.setProperty("--level", Math.min(row.level - 1, MAX_INDENT));
  const bar = gridCell("bar", barParts(row));
  bar.setAttribute("aria-label", barLabel(row));
  return gridRow(
    `row-${row.index}`,
    at,
    isActive,
    [row.error ? "failed" : null],
    [label, gridCell("time", seconds(row.end - row.sent)), gridCell("tokens", tokensOf(row)), bar],
    { "aria-level": row.level, "aria-expanded": row.descendants ? String(isOpen) : null },
  );
}

const ORIGIN_MARKS = { cache: "cached", journal: "replayed" };
const CUT_REASONS = new Set([
  "content_filter",
  "length",
  "max_output_tokens",
  "max_tokens",
  "model_context_window_exceeded",
]);

function snippet(row) {
  const item = row.item;
  if (row.kind === "turn") return oneLine(item.reply.slice(0, 400).replace(/```\w*/g, ""), 80);
  if (row.kind === "block") return oneLine(item.code, 80);
  return row.kind === "call" ? oneLine(replyText(item.reply), 80) : oneLine(item.arguments, 80);
}

function tokensOf(row) {
  if (!row.isModelCall) return "";
  return row.usage ? count(row.usage.input_tokens + row.usage.output_tokens) : "unknown";
}

function barLabel(row) {
  const wait = row.sent - row.from;
  const waited = wait > 0.001 ? `waited ${seconds(wait)}, ` : "";
  return `${waited}from ${seconds(row.sent)} to ${seconds(row.end)}`;
}

/** The pieces of a row's bar: waiting, answering, and the code that a turn ran. */
function barParts(row) {
  const [first, last] = calls.window;
  const share = (time) => ((Math.min(Math.max(time, first), last) - first) / (last - first)) * 100;
  const parts = [
    ["wait", row.from, row.sent],
    [
      row.kind === "turn" || row.isModelCall ? "answering" : row.isChild ? "child" : "code",
      row.sent,
      row.end,
    ],
    ["after", row.kind === "turn" ? row.end : row.last, row.last],
  ];
  return parts
    .filter(
      ([kind, from, to]) =>
        (to > from || kind === "answering" || kind === "code") && to >= first && from <= last,
    )
    .map(([kind, from, to]) => {
      const part = make("span", { class: `part ${kind}` });
      part.style.left = `${share(from)}%`;
      const least = kind === "wait" || kind === "after" ? 0 : 2;
      part.style.width = `max(${least}px, ${share(to) - share(from)}%)`;
      return part;
    });
}

function drawAxis() {
  const [first, last] = calls.window;
  const rough = ((last - first) * TICK_WIDTH) / Math.max(calls.axis.clientWidth, TICK_WIDTH);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((each) => each >= rough);
  const ticks = [];
  for (let time = Math.ceil(first / step) * step; time < last - rough * 0.7; time += step) {
    const tick = make("span", { class: "tick" }, axisTime(time, step));
    tick.style.left = `${((time - first) / (last - first)) * 100}%`;
    ticks.push(tick);
  }
  calls.axis.replaceChildren(...ticks);
}

const axisTime = (time, step) =>
  step >= 1
    ? `${count(Math.round(time))} s`
    : step >= 0.001
      ? `${count(Math.round(time * 1000))} ms`
      : `${(time * 1000).toFixed(2)} ms`;

/** Show a part of the time; it stays within the run. */
function zoom(first, last) {
  const span = Math.min(Math.max(last - first, endOfRun / 1e5), endOfRun);
  const from = Math.min(Math.max(first, 0), endOfRun - span);
  calls.window = [from, from + span];
  calls.list.drawNow();
  drawAxis();
}

/** Zoom around the selected row, or the middle. */
function zoomBy(factor) {
  const [first, last] = calls.window;
  const row = calls.selected;
  const inside = row && row.end >= first && row.sent <= last;
  const middle = inside
    ? (Math.max(row.sent, first) + Math.min(row.end, last)) / 2
    : (first + last) / 2;
  zoom(middle - (middle - first) * factor, middle + (last - middle) * factor);
}

const pan = (by) =>
  zoom(
    calls.window[0] + by * (calls.window[1] - calls.window[0]),
    calls.window[1] + by * (calls.window[1] - calls.window[0]),
  );

function zoomToRow() {
  const row = calls.selected;
  if (!row) return;
  const margin = Math.max((row.last - row.from) * 0.1, endOfRun / 1e5);
  zoom(row.from - margin, row.last + margin);
}

function toggleRow(row, isOpen = calls.collapsed.has(row.index)) {
  if (isOpen) calls.collapsed.delete(row.index);
  else calls.collapsed.add(row.index);
  chooseRows();
}

/** Select a row, and show it in the list: ancestors are expanded, a filter that hides it ends. */
function revealRow(row) {
  calls.selected = row;
  for (let at = row.parent; at !== null; at = rows[at].parent) calls.collapsed.delete(at);
  chooseRows();
  if (!calls.shown.includes(row.index)) {
    calls.filter = calls.filterBox.value = "all";
    calls.words = calls.searchBox.value = "";
    chooseRows();
  }
  calls.list.move(calls.shown.indexOf(row.index));
}

function onCallKey(event) {
  const row = rows[calls.shown[calls.list.active]];
  const actions = {
    ArrowRight: () =>
      calls.collapsed.has(row.index)
        ? toggleRow(row, true)
        : row.descendants && choose(rows[row.index + 1]),
    ArrowLeft: () =>
      row.descendants && !calls.collapsed.has(row.index)
        ? toggleRow(row, false)
        : row.parent !== null && choose(rows[row.parent]),
    "+": () => zoomBy(0.5),
    "=": () => zoomBy(0.5),
    "-": () => zoomBy(2),
    0: () => zoom(0, endOfRun),
    "[": () => pan(-0.25),
    "]": () => pan(0.25),
    z: zoomToRow,
  };
  if (!row || !(event.key in actions)) return false;
  actions[event.key]();
  return true;
}

/** Select a row as if the user had moved to it. */
function choose(row) {
  revealRow(row);
  openRow(row, { isMove: true });
}

function callsSection() {
  calls.status = make("span", { class: "muted", role: "status" });
  calls.axis = make("span", { class: "bar axis", "aria-hidden": "true" });
  calls.searchBox = make("input", {
    type: "search",
    id: "search",
    placeholder: "prompts, replies, code …",
    oninput: () => {
      calls.words = calls.searchBox.value.trim().toLowerCase();
      chooseRows();
    },
  });
  calls.filterBox = make(
    "select",
    {
      id: "filter",
      onchange: () => {
        calls.filter = calls.filterBox.value;
        chooseRows();
      },
    },
    Object.entries(FILTERS).map(([value, [label]]) => make("option", { value }, label)),
  );
  const heads = [
    ["label", "Turn, block or call"],
    ["time", "Time"],
    ["tokens", "Tokens"],
    ["bar", make("span", { class: "hidden" }, "Waterfall"), calls.axis],
  ];
  calls.list = gridOf("calls", "Turns, blocks and calls", heads, {
    role: "treegrid",
    describedBy: "calls-keys",
    height: ROW_HEIGHT,
    draw: drawCall,
    onmove: (at) => openRow((calls.selected = rows[calls.shown[at]]), { isMove: true }),
    onenter: () => document.getElementById("detail-title").focus(),
    keys: onCallKey,
  });
  calls.box = calls.list.box;
  const legend = [
    ["wait", "waiting"],
    ["answering", "answering"],
    ["code", "code"],
    ["child", "child run"],
  ].map(([kind, label]) =>
    make("span", { class: "legend" }, make("span", { class: `part ${kind}` }), label),
  );
  return section(
    "calls",
    "Turns and calls",
    make(
      "div",
      { class: "tools" },
      make("label", { for: "search" }, "Search "),
      calls.searchBox,
      make("label", { for: "filter" }, "Show "),
      calls.filterBox,
      make(
        "span",
        { class: "group", role: "group", "aria-label": "Waterfall" },
        button("−", () => zoomBy(2), { "aria-label": "Zoom out" }),
        button("+", () => zoomBy(0.5), { "aria-label": "Zoom in" }),
        button("◂", () => pan(-0.25), { "aria-label": "Earlier" }),
        button("▸", () => pan(0.25), { "aria-label": "Later" }),
        button("Whole run", () => zoom(0, endOfRun)),
      ),
      calls.status,
    ),
    rows.length || isLive
      ? calls.box
      : make("p", { class: "muted" }, "No turn was recorded."),
    make(
      "p",
      { class: "muted small", id: "calls-keys" },
      legend,
      make(
        "span",
        { class: "keys" },
        "Keys: ↑ ↓ move, ← → collapse and expand, Enter details, + − zoom, ",
        "z zoom to the row, 0 whole run, [ ] pan, / search.",
      ),
    ),
  );
}
