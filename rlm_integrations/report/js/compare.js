// The page of two runs: what differs in settings, totals, answers, and at each place of the trees.

const diff = data("diff");
const places = diff.places.map((place, index) => ({
  ...place,
  index,
  isSame: Boolean(place.one && place.other && !place.changed.length),
}));
const differing = places.filter((place) => !place.isSame);
const MAX_LINES = 600; // of two texts that are compared line by line

/** The lines of two texts with " ", "-" or "+": those they share, and those of one only. */
function compareLines(one, other) {
  const [a, b] = [one.split("\n"), other.split("\n")];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (
    end < a.length - start &&
    end < b.length - start &&
    a[a.length - 1 - end] === b[b.length - 1 - end]
  )
    end++;
  const [x, y] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const same = (lines) => lines.map((line) => [" ", line]);
  const middle =
    x.length * y.length > MAX_LINES ** 2
      ? [...x.map((line) => ["-", line]), ...y.map((line) => ["+", line])]
      : longestCommon(x, y);
  return [...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))];
}

function longestCommon(x, y) {
  const width = y.length + 1;
  const length = new Uint32Array((x.length + 1) * width);
  for (let i = x.length - 1; i >= 0; i--) {
    for (let j = y.length - 1; j >= 0; j--) {
      length[i * width + j] =
        x[i] === y[j]
          ? length[(i + 1) * width + j + 1] + 1
          : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) {
      lines.push([" ", x[i++]]);
      j++;
    } else if (
      j >= y.length ||
      (i < x.length && length[(i + 1) * width + j] >= length[i * width + j + 1])
    ) {
      lines.push(["-", x[i++]]);
    } else lines.push(["+", y[j++]]);
  }
  return lines;
}

const LINE = { " ": "same", "-": "removed", "+": "added" };

/** Two texts as one, with the lines of each marked. */
const twoTexts = (one, other) =>
  make(
    "pre",
    { class: "compared", tabindex: "0", dir: "auto" },
    compareLines(one, other).map(([kind, line]) =>
      make("span", { class: LINE[kind] }, `${kind} `, textNodes(line), "\n"),
    ),
  );

const found = { shown: places, onlyDiffering: true, selected: null };

function saysOf(place) {
  if (!place.one) return "only in B";
  if (!place.other) return "only in A";
  return place.changed.length ? place.changed.join(", ") : "the same";
}

function choosePlaces() {
  const words = found.searchBox.value.trim().toLowerCase();
  const text = (place) =>
    (place.words ??= [
      place.place,
      ...Object.values(place.one ?? {}),
      ...Object.values(place.other ?? {}),
    ]
      .join("\n")
      .toLowerCase());
  found.shown = places.filter(
    (place) => (!found.onlyBox.checked || !place.isSame) && (!words || text(place).includes(words)),
  );
  found.status.textContent = `${count(found.shown.length)} of ${plural(places.length, "place")}`;
  found.list.show(found.shown.length, Math.max(0, found.shown.indexOf(found.selected)));
}

/** The tokens of a call, or of all calls within a block or a child run, in and out together. */
function tokensAt(side) {
  const text = side.tokens ?? side["tokens within"];
  const counts = text?.match(/\d[\d,]*/g)?.map((each) => Number(each.replaceAll(",", "")));
  if (!counts) return text;
  return count(counts.reduce((sum, each) => sum + each)) + (text.includes("unknown") ? " + ?" : "");
}

const costAt = (side) => (side.cost ?? side["cost within"])?.replace(/(\.\d{2}\d*?)0+$/, "$1");

function drawPlace(at, isActive) {
  const place = found.shown[at];
  const both = (show) =>
    [...new Set([place.one, place.other].map((side) => show(side ?? {}) ?? "—"))].join(" · ");
  const label = gridCell("label", textNodes(place.place.split(", ").slice(-1)[0]));
  label.style.setProperty("--level", Math.min(place.level - 1, MAX_INDENT));
  return gridRow(`place-row-${place.index}`, at, isActive, [place.isSame ? null : "differs"], [
    label,
    gridCell("says", textNodes(saysOf(place))),
    gridCell("tokens", textNodes(both(tokensAt))),
    gridCell("cost", textNodes(both(costAt))),
    gridCell("time", textNodes(both((side) => side.seconds))),
  ]);
}

const isShort = (text) => text.length < 60 && !text.includes("\n");

/** The fields of a place: short ones side by side, then those with long texts. */
function fieldNodes(place) {
  const fields = Object.keys(place.one ?? place.other).map((name) => [
    name,
    place.one?.[name] ?? "",
    place.other?.[name] ?? "",
  ]);
  const filled = fields.filter(([, one, other]) => one || other);
  const short = filled.filter(([, one, other]) => isShort(one) && isShort(other));
  const long = filled.filter((field) => !short.includes(field));
  return [
    short.length
      ? table(
          "Values",
          ["", "A", "B"],
          short.map(([name, one, other]) => [name, foreign(one || "—"), foreign(other || "—")]),
        )
      : null,
    ...long.flatMap(([name, one, other]) => [
      make("h3", {}, one === other ? `${name} (the same)` : name),
      place.one && place.other && one !== other ? twoTexts(one, other) : pre(one || other),
    ]),
  ];
}

function openPlace(place, { isMove = false } = {}) {
  found.selected = place;
  const heading = document.getElementById("detail-title");
  heading.replaceChildren(...textNodes(place.place));
  const said = place.changed.length ? `differs in: ${saysOf(place)}` : saysOf(place);
  found.body.replaceChildren(
    make("p", { class: "muted" }, said),
    ...fieldNodes(place).filter(Boolean),
  );
  remember(`place-${place.index + 1}`, isMove);
}

function goToPlace(name, isMove) {
  const place = /^place-\d+$/.test(name) ? places[Number(name.slice(6)) - 1] : null;
  const element = document.getElementById(name);
  if (place) {
    if (!found.shown.includes(place)) {
      found.onlyBox.checked = false;
      found.searchBox.value = "";
      choosePlaces();
    }
    found.list.move(found.shown.indexOf(place));
    openPlace(place, { isMove });
    show(document.getElementById("detail-title"));
  } else if (element && element.closest("#page")) {
    remember(name, isMove);
    show(element);
  }
}

/** Rows of a table of both runs' values; those that differ are in bold. */
const valueRows = (pairs) =>
  Object.entries(pairs).map(([name, values]) => [
    foreign(name),
    ...values.map((value) => foreign(value, values[0] === values[1] ? "bdi" : "b")),
  ]);

function summarySection() {
  const [one, other] = diff.questions;
  const asked =
    one === other
      ? foreign(one || "(no question was recorded)", "h1", { id: "question", tabindex: "-1" })
      : [
          make("h1", { id: "question", tabindex: "-1" }, "Two questions"),
          foreign(`A: ${one}`, "p"),
          foreign(`B: ${other}`, "p"),
        ];
  const settings = Object.entries(diff.settings).map(([name, values]) => [
    foreign(name),
    ...values.map((value) => (value === null ? "none" : foreign(cut(value, 300)))),
  ]);
  const [first, second] = diff.answers;
  return make(
    "section",
    { id: "summary", "aria-labelledby": "question" },
    make("p", { class: "over" }, "Two runs compared"),
    asked,
    make(
      "p",
      {},
      diff.same
        ? "Settings, answers and every turn are the same."
        : `${count(differing.length)} of ${plural(places.length, "place")} differ.`,
    ),
    make(
      "div",
      { class: "tables" },
      table("Totals", ["", "A", "B"], valueRows(diff.totals)),
      table("Calls, tokens and cost", ["", "A", "B"], valueRows(diff.spent)),
    ),
    make(
      "h2",
      { id: "answers", tabindex: "-1" },
      first === second ? "Answers (the same)" : "Answers",
    ),
    first === second ? pre(first || "(there is none)") : twoTexts(first, second),
    make("h2", { id: "settings", tabindex: "-1" }, "Settings"),
    settings.length
      ? table("Settings that differ", ["", "A", "B"], settings)
      : make("p", { class: "muted" }, "All are the same."),
  );
}

function placesSection() {
  found.status = make("span", { class: "muted", role: "status" });
  found.searchBox = make("input", {
    type: "search",
    id: "search",
    placeholder: "prompts, replies, code …",
    oninput: choosePlaces,
  });
  found.onlyBox = make("input", {
    type: "checkbox",
    id: "only",
    checked: !diff.same,
    onchange: choosePlaces,
  });
  const heads = [
    ["label", "Turn, block or call"],
    ["says", "Differs in"],
    ["tokens", "Tokens A · B"],
    ["cost", "Cost A · B"],
    ["time", "Seconds A · B"],
  ];
  found.list = gridOf("places", "Places of both runs", heads, {
    height: 28,
    draw: drawPlace,
    onmove: (at) => openPlace(found.shown[at], { isMove: true }),
    onenter: () => document.getElementById("detail-title").focus(),
  });
  found.body = make("div", {}, make("p", { class: "muted" }, "Select a row."));
  return make(
    "div",
    { class: "calls-and-detail" },
    section(
      "places",
      "Turns and calls",
      make(
        "div",
        { class: "tools" },
        make("label", { for: "search" }, "Search "),
        found.searchBox,
        make("label", {}, found.onlyBox, " only what differs"),
        found.status,
      ),
      places.length ? found.list.box : make("p", { class: "muted" }, "No turn was recorded."),
    ),
    section("detail", "Details", found.body),
  );
}

const CHAPTERS = [
  ["question", "Runs"],
  ["answers", "Answers"],
  ["settings", "Settings"],
  ["places-title", "Calls"],
  ["detail-title", "Details"],
];

document.getElementById("page").replaceChildren(
  make("a", { class: "skip", href: "#places-title" }, "Skip to the calls"),
  pageHeader(
    CHAPTERS,
    downloadButton("diff", () => document.getElementById("data-diff").textContent),
  ),
  make("main", {}, summarySection(), placesSection()),
);
choosePlaces();
if (found.shown.length) {
  const first = found.shown[0];
  openPlace(first, { isMove: true });
  clearTimeout(moving);
}
window.addEventListener("beforeprint", () => found.shown.length <= 500 && found.list.drawNow(true));
window.addEventListener("afterprint", () => found.list.drawNow());
followLinks(goToPlace);
document.documentElement.dataset.ready = "true";
