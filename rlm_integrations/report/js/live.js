// The page of a run that happens: parts whose data changed are made again, and what the user
// selected, opened, zoomed and scrolled stays as it is.

const live = {
  calls: data("live")[1], // in flight
  status: make("span", { role: "status" }),
  flight: make("span", { class: "muted" }),
};

const SAYS = {
  live: "Live: this page follows the run.",
  lost: "The connection is lost: this is the record so far.",
  ended: "The run has ended, and this page has all of it. Its address may be gone soon.",
};

function sayLive(state) {
  if (live.status.textContent !== SAYS[state]) live.status.textContent = SAYS[state];
  live.state = state;
  sayFlight();
}

function sayFlight() {
  live.flight.textContent =
    live.state === "live" && isRunning() ? ` ${plural(given.calls, "call")} in flight.` : "";
}

/** What a row is, whatever its number: numbers change when rows are added before it. */
function keysOf(rows) {
  const keys = [];
  for (const { kind, item, parent } of rows) {
    const own = { turn: item.iteration, block: item.block }[kind] ?? item.path;
    keys.push(`${parent === null ? "" : keys[parent]} ${kind} ${own}`);
  }
  return keys;
}

/** Read the record again; what refers to rows and objects is found again. */
function readAgain() {
  const before = keysOf(rows);
  const collapsed = new Set([...calls.collapsed].map((at) => before[at]));
  const selected = calls.selected && before[calls.selected.index];
  const isWhole = calls.window[0] === 0 && calls.window[1] === endOfRun;
  derivations.forEach((compute) => compute());
  const after = keysOf(rows);
  calls.collapsed = new Set(after.flatMap((key, at) => (collapsed.has(key) ? [at] : [])));
  calls.selected = rows[after.indexOf(selected)] ?? null;
  if (isWhole) calls.window = [0, endOfRun];
  if (store.selected) store.selected = objects.get(store.selected.id) ?? null;
}

function updateSection(id, makeSection) {
  replaceKeeping(document.getElementById(id), makeSection());
}

function updateCalls() {
  const box = calls.box;
  const isAtEnd = box.scrollTop > 0 && box.scrollTop + box.clientHeight >= box.scrollHeight - 2;
  box.setAttribute("aria-rowcount", rows.length + 1);
  if (!calls.selected && rows.length) calls.selected = rows[0];
  chooseRows();
  if (isAtEnd) box.scrollTop = box.scrollHeight;
  if (!calls.selected) return;
  const title = document.getElementById("detail-title");
  title.replaceChildren(...detailTitle(calls.selected));
  detail.body = replaceKeeping(detail.body, make("div", {}, detailNodes(calls.selected)));
}

function updateStore() {
  if (!store.list) {
    updateSection("store", storeSection);
    if (store.list) chooseObjects();
    return;
  }
  store.list.box.setAttribute("aria-rowcount", store.all.length + 1);
  chooseObjects();
  drawGraph(store.selected);
  if (!store.selected) return;
  const body = store.body.cloneNode();
  body.append(...objectDetail(store.selected).flat(2).filter(Boolean));
  store.body = replaceKeeping(store.body, body);
}

function updateMap() {
  if (!run.sources.length) return;
  const before = strips.splice(0);
  const readers = map.readers;
  const top = reader.body.scrollTop;
  const fresh = mapSection();
  strips.forEach((strip, at) => {
    const { place, marked } = before[at];
    strip.marked = marked;
    if (place === undefined) return;
    strip.place = place;
    strip.at = strip.partAt(place);
    strip.say();
  });
  map.readers.replaceWith((map.readers = readers));
  if (reader.source) drawText();
  replaceKeeping(document.getElementById("document"), fresh);
  reader.body.scrollTop = top;
}

function update(places) {
  const isNew = (...names) => names.some((name) => places.has("*") || places.has(name));
  given.isUpdated = true;
  readAgain();
  updateSection("answer", answerSection);
  updateSection("totals", totalsSection);
  updateCalls();
  if (isNew("run.store")) updateStore();
  if (isNew("reading.readings", "reading.sources", "run.citations", "run.stop_reason")) updateMap();
  sayFlight();
}

given.calls = live.calls;
document.querySelector("main").prepend(make("p", { class: "live" }, live.status, live.flight));
follow(given, data("live")[0], update, sayLive);
