// Puts the page together; keys, the download and printing.

function openRow(row, { isMove = false } = {}) {
  calls.selected = row;
  showDetail(row);
  remember(row.name, isMove);
}

/** Go to what a link names. */
function goTo(name, isMove) {
  const row = rowOf.get(name);
  const place = name.match(/^text-(.+)-(\d+)-(\d+)$/s);
  if (row) {
    revealRow(row);
    openRow(row, { isMove });
    show(document.getElementById("calls"), false);
    show(document.getElementById("detail-title"));
  } else if (name.startsWith("object-") && objects.has(name.slice(7))) {
    openObject(objects.get(name.slice(7)), { isMove });
    show(document.getElementById("store"), false);
    show(store.body);
  } else if (place && sourceOf.has(place[1])) {
    const [start, end] = [Number(place[2]), Number(place[3])];
    const span = { source: place[1], start, end };
    openText(place[1], start, end, [span]);
    markOnMaps([span]);
    strips[sourceOf.get(place[1]).number].goToPlace(start);
    remember(name, isMove);
    show(reader.body);
    reader.body.querySelector("mark.chosen")?.scrollIntoView({ block: "nearest" });
  } else {
    const element = document.getElementById(name);
    if (!element || !element.closest("#page")) return;
    remember(name, isMove);
    show(element);
  }
}

/** The record, exactly as it can be loaded again; of a live page what it has by now. */
const recordText = () =>
  given.isUpdated ? JSON.stringify(given.run) : document.getElementById("data-run").textContent;

const PARTS = [
  ["answer", "Answer", answerSection],
  ["totals", "Totals", totalsSection],
  ["calls", "Calls", callsSection],
  ["detail", "Details", detailSection],
  ["store", "Store", storeSection],
  ["document", "Document", mapSection],
];

function start() {
  const page = document.getElementById("page");
  const made = PARTS.map(([, , makePart]) => makePart());
  const wide = make("div", { class: "calls-and-detail" }, made[2], made[3]);
  page.replaceChildren(
    make("a", { class: "skip", href: "#calls-title" }, "Skip to the calls"),
    pageHeader(
      PARTS.map(([id, label]) => [id === "answer" ? "question" : `${id}-title`, label]),
      downloadButton(run.run_id || "run", recordText),
    ),
    make("main", {}, made[0], made[1], wide, made[4], made[5]),
  );
  if (rows.length) {
    chooseRows();
    openRowQuietly(rows[0]);
  }
  if (store.list) chooseObjects();
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeprint", drawAll);
  window.addEventListener("afterprint", drawView);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    strips.forEach((strip) => strip.draw()),
  );
  followLinks(goTo);
  setTimeout(prepare, PREPARE_DELAY);
  document.documentElement.dataset.ready = "true";
}

function openRowQuietly(row) {
  calls.selected = row;
  showDetail(row);
}

function onKey(event) {
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping && rows.length) {
    event.preventDefault();
    calls.searchBox.focus();
  } else if (event.key === "Escape" && event.target === calls.searchBox) {
    calls.box.focus();
  }
}

const PREPARE_DELAY = 300; // milliseconds after the page was shown, so that it is shown at once
const PREPARED_ROWS = 500; // in one step, so that the page reacts meanwhile

/** Read the texts and the words of the rows, step by step, before they are needed. */
function prepare(first = 0) {
  const next = run.sources.find((source) => !texts.has(source.name));
  if (next) loadText(next.name);
  else for (const row of rows.slice(first, first + PREPARED_ROWS)) wordsOf(row);
  const done = next ? first : first + PREPARED_ROWS;
  if (next || done < rows.length) setTimeout(prepare, 0, done);
}

const MAX_PRINTED_ROWS = 500;

/** On paper nothing scrolls or opens: lists of a moderate length are drawn whole. */
function drawAll() {
  setOpen(true);
  for (const list of [calls.list, store.list])
    if (list && list.length <= MAX_PRINTED_ROWS) list.drawNow(true);
}

const setOpen = (isOpen) => (document.querySelector("#totals details").open = isOpen);

function drawView() {
  setOpen(false);
  for (const list of [calls.list, store.list]) list?.drawNow();
}

start();
